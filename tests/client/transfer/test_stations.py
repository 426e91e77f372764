"""What happens to a file after it was sent: what ends the run from a station."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import Answer, Request
from tus_services import Service

from uploader_cli import Settings, upload
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.packs import FoundFile
from uploader_cli.core.plan import LocalFile
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.stations import compared

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

    monkeypatch.setattr("uploader_cli.transfer.result_poller.found_at", broken)
    (tmp_path / "a.mp4").write_bytes(bytes(1000))
    with Ready() as service:
        how: dict[str, Any] = {"result_url": "{url}", "result_done": ["state=ready"]}
        with pytest.raises(RuntimeError, match="of the station"):
            upload([tmp_path / "a.mp4"], tus_endpoint=service.url, **how)


def test_file_that_vanished_before_its_comparison_fails_as_vanished(tmp_path: Path) -> None:
    """Bytes after a break are compared also without --verify; a file that is gone shows nothing of what is stored."""
    there = FoundFile(5, "0" * 64, None)
    pacer = SimpleNamespace(call=lambda step: step())
    api: Any = SimpleNamespace(pacer=pacer, stored=lambda _location, patient: there)
    context: Any = SimpleNamespace(settings=Settings(), stop=SimpleNamespace(checkpoint=lambda: None))
    gone = FileResult(LocalFile(0, str(tmp_path / "gone"), "gone", 5, 0), location="/uploads/gone", continued=True)
    error = compared(context, api, gone).error
    assert error is not None
    assert error.code is FailureCode.VANISHED
