"""The thread that asks for the state of processed files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import Answer, Request
from tus_services import Service

from uploader_cli import upload

if TYPE_CHECKING:
    from pathlib import Path


class Ready(Service):
    """A tus server that has processed each file at once."""

    methods = "OPTIONS POST HEAD PATCH GET"

    def _get(self, request: Request) -> Answer:
        del request
        return Answer(200, {"state": "ready"})


def test_error_in_the_thread_that_waits_for_the_server_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any) -> None:
        raise RuntimeError("of the station")

    monkeypatch.setattr("uploader_cli.features.processing.poller.found_at", broken)
    (tmp_path / "a.mp4").write_bytes(bytes(1000))
    with Ready() as service:
        how: dict[str, Any] = {"result_url": "{url}", "result_done": ["state=ready"]}
        with pytest.raises(RuntimeError, match="of the station"):
            upload([tmp_path / "a.mp4"], tus_endpoint=service.url, **how)
