"""What the tests of the core need of the feature."""

from __future__ import annotations

from uploader_cli.features.analysis.events import Stage

EVENTS = {"stage": Stage("model analysis", 23.0)}
TEXTS = {"analyze": "music"}
VALUES = {"analyze": ["none", "content", "fusion", "music"]}
WRITTEN = {"--analysis-to": (["upload", "a.mp4", "-s", "http://127.0.0.1:9", "--analyze", "content"], ".json")}
