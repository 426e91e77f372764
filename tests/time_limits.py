"""Time limits for slow test machines. `benchmarks/` measures times."""

from __future__ import annotations

PATIENCE = 60.0
"""Seconds after which a test gives up waiting: it only ends a failed test, and does not measure speed."""

SLACK = 10
"""Factor by which a loaded machine may exceed the promised seconds before a test fails."""
