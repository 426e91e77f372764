"""The texts about a run that several views share."""

from __future__ import annotations

import pytest

from uploader_cli.core.state import ProgressState
from uploader_cli.render import overview


@pytest.mark.parametrize("server", ["https://h/files", "https://h/files/"])
@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("https://h/files/u1: no answer", "no answer"),
        ("no answer of https://h/files/u1, tried twice", "no answer of the server, tried twice"),
        ("no answer of https://h/files", "no answer of the server"),
        ("no answer of https://other/files/u1", "no answer of https://other/files/u1"),
        ("x" * 600, "x" * 500),
    ],
)
def test_reason_does_not_repeat_the_url_of_the_server(server: str, message: str, shown: str) -> None:
    assert overview.reason(message, ProgressState(server=server)) == shown
