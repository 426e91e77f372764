"""What the tests of the core need of the feature."""

from __future__ import annotations

from pathlib import Path

from uploader_cli.features.then.fields import Removed
from uploader_cli.features.then.options import Removal

TEXTS = {"then": "move:sent"}
VALUES = {"then": [None, Removal(), Removal(Path("/a b"))]}
ENUMS = {"`removed` of `file.completed`, `file.skipped`": Removed}
EXITS = {"unverifiable": 2}
