"""Values of the options, for the tests of all options."""

from __future__ import annotations

from pathlib import Path

from uploader_cli.features.then.options import Removal

TEXTS = {"then": "move:sent"}
VALUES = {"then": [None, Removal(), Removal(Path("/a b"))]}
