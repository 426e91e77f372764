"""What the tests of the core need of the feature."""

from __future__ import annotations

WRITTEN = {"--junit": (["judge", "--for", "true"], ".xml")}
CALLED = {"judge": "features.tester.judge"}
