"""What the tests of the core need of the feature."""

from __future__ import annotations

WRITTEN = {"-o": (["report", "show", "a.mp4"], ".json")}
