"""What pyproject.toml cannot say: the optional extension and its abi3 tag."""

import os
import platform

from setuptools import setup

OFF = {"off", "0", "no", "false"}


def arguments() -> dict:
    """Leave the extension out when ZDEV_BUILD=off; zdev then runs without it."""
    if os.environ.get("ZDEV_BUILD", "").lower() in OFF:
        return {}
    extension = {"cffi_modules": ["build_ffi.py:ffi"]}
    if platform.python_implementation() == "CPython":
        extension["options"] = {"bdist_wheel": {"py_limited_api": "cp39"}}
    return extension


setup(**arguments())
