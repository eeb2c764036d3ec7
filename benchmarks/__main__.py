"""The command; see README.md."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:] == ["gate"]:
        from .gate import main

        sys.exit(main())
