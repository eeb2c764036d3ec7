"""zdev side by side with pyzmq, libzmq and no device at all; see README.md."""
