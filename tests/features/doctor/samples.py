"""What the tests of the core need of the feature."""

from __future__ import annotations

CALLED = {"doctor": "features.doctor.examination"}
