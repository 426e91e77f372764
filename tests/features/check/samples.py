"""What the tests of the core need of the feature."""

from __future__ import annotations

from uploader_cli.features.check.events import CheckFile, CheckFinished, CheckResult

CALLED = {"check": "features.check.comparison"}
ENUMS = {"`result` of `check.file`": CheckResult}
EVENTS = {
    "different": CheckFile(0, "b\udcff", 5, "b%FF", CheckResult.DIFFERENT, 4, "/uploads/personal/b%25FF"),
    "missing": CheckFile(1, "a", 5, "a", CheckResult.MISSING, None, None),
    "end": CheckFinished(0, 1, 1, 0, 0, 10, 0.5, 4),
}
