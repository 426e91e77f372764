"""Deliberately broken behaviours, to check that tests fail: `python -m tests.mutants`."""
