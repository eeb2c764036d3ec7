"""``zdev keygen``: a pair of keys for CURVE, in two files."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from zdev._certificates import write_keys
from zdev.cli._ends import DONE, printing, refuse, say

if TYPE_CHECKING:
    from zdev.cli._ends import Commands

__all__ = ["add_to", "keygen"]

WHO = "zdev keygen"

EPILOG = """\
NAME.key has the public key: give it to those who connect to the owner of the keys, or let him in.
NAME.key_secret has the secret key, too: its mode is 0600, and zdev wants that to stay so.
Both are certificates as pyzmq and czmq have them. The public key is printed.

examples:
  zdev keygen broker                     write broker.key and broker.key_secret here
  zdev keygen --directory /etc/zdev/keys alice
                                         the same in another directory, which must exist
  zdev keygen --force broker             new keys in the place of the old ones
"""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    text = "make a pair of keys for CURVE"
    parser = commands.add_parser(
        "keygen", help=text, description="Make a pair of keys for CURVE.", epilog=EPILOG
    )
    parser.add_argument("name", metavar="NAME", help="name of the two files, without their ends")
    parser.add_argument(
        "--directory", metavar="DIR", default=".", help="where to write them (default: here)"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.set_defaults(command=keygen)


@printing
def keygen(arguments: argparse.Namespace) -> int:
    """Run ``zdev keygen``."""
    try:
        public_path, secret_path, public = write_keys(
            arguments.directory, arguments.name, replace=arguments.force
        )
    except FileExistsError as error:
        return refuse(WHO, f"{error.filename} is there already; --force replaces it")
    except OSError as error:
        words = f"{error.filename or arguments.directory}: {error.strerror}"
        if not os.path.isdir(arguments.directory):
            words = f"there is no folder {arguments.directory}; make it first"
        return refuse(WHO, words)
    except (ValueError, NotImplementedError) as error:
        return refuse(WHO, error)
    print(public.decode())
    say(WHO, f"wrote {public_path}, and {secret_path}, which is secret")
    return DONE
