"""Behaviours broken on purpose, to check that tests fail: `python -m tests.mutants`."""
