"""A soak test: `python -m tests.proofs.soak --seconds N [--seed S]`; see `__main__`."""
