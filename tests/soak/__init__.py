"""A soak test: `python -m tests.soak --seconds N [--seed S]`; see `__main__`."""
