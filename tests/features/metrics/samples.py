"""What the tests of the core need of the feature."""

from __future__ import annotations

WRITTEN = {"--metrics-file": (["upload", "a.mp4", "-s", "http://127.0.0.1:9"], ".prom")}
