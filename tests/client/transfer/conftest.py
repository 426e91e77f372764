"""A fixture for tests whose scripted server plays one connection."""

from __future__ import annotations

import pytest
from time_limits import PATIENCE

from uploader_cli.transfer import connection


@pytest.fixture
def kept_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no connection become too old to be used again: on a slow machine the client would dial another one."""
    monkeypatch.setattr(connection, "IDLE_LIMIT", PATIENCE)
