"""What the tests of the core need of the feature."""

from __future__ import annotations

TEXTS = {"settle": "9"}
VALUES = {"settle": [0.0, 0.25, 10.0, 1e6]}
