"""What the tests of the core need of the feature."""

from __future__ import annotations

WRITTEN = {"--junit": (["smoke", "-s", "http://127.0.0.1:9"], ".xml")}
CALLED = {"smoke": "features.smoke.runner"}
