"""Time limits for slow test machines. `benchmarks/` measures times."""

from __future__ import annotations

PATIENCE = 60.0
"""Seconds after which a test gives up waiting: it only keeps a failure from hanging, and says nothing about speed."""

ROOM = 10
"""A loaded machine may take so many times the seconds that are promised before a test calls the promise broken."""
