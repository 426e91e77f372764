"""A fixture for tests of the journal's pruning."""

from __future__ import annotations

import pytest
from time_limits import PATIENCE

from uploader_cli.transfer.journal import schema


@pytest.fixture
def patient_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the thread that looks for files begin late, as it does on a busy machine."""
    for limit in ("BATCH_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(schema, limit, PATIENCE)
