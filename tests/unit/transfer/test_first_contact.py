"""The first contact with a server, and the start of the run that is announced meanwhile."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from time_limits import PATIENCE

from uploader_cli.transfer import first_contact
from uploader_cli.transfer.first_contact import meeting

if TYPE_CHECKING:
    import pytest


def test_start_of_the_run_is_announced_before_anything_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers while it is being announced, late."""
    monkeypatch.setattr(first_contact, "BEGUN_AFTER", 0.0)
    begins, order = threading.Event(), list[str]()

    def begin() -> None:
        begins.set()
        threading.Event().wait(0.05)
        order.append("begun")

    with meeting(begin):
        assert begins.wait(PATIENCE)
    order.append("ended")
    assert order == ["begun", "ended"]
