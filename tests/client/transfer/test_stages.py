"""What happens to a file after it was sent: the order of the stages, and what ends the run from one of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import Answer, Request
from serving import running_server
from tus_services import Service

from uploader_cli import Settings, upload
from uploader_cli.sources import removal
from uploader_cli.transfer.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.results import FileResult


class Ready(Service):
    """A tus server that has processed each file at once."""

    methods = "OPTIONS POST HEAD PATCH GET"

    def _get(self, request: Request) -> Answer:
        del request
        return Answer(200, {"state": "ready"})


def test_each_file_is_reported_before_the_next_one_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within one pack: a run that is killed in between has reported every file that it deleted."""
    steps: list[tuple[str, str]] = []
    end = Ledger.end

    def delete(file: LocalFile) -> None:
        steps.append(("deleted", os.path.basename(file.path)))
        removal.delete(file)

    def ended(ledger: Ledger, results: Sequence[FileResult]) -> None:
        steps.extend(("ended", os.path.basename(one.file.path)) for one in results)
        end(ledger, results)

    monkeypatch.setattr("uploader_cli.transfer.then.delete", delete)
    monkeypatch.setattr(Ledger, "end", ended)
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode() * 1000)
    with running_server(packs=True) as server:
        result = upload([tmp_path], Settings(server=server.url, then="delete"))
    assert result.ok
    assert len(steps) == 6
    assert all(
        steps[n : n + 2] == [("deleted", name), ("ended", name)] for n, (_, name) in enumerate(steps) if not n % 2
    )


def test_error_in_the_thread_that_waits_for_the_server_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any) -> None:
        raise RuntimeError("of the stage")

    monkeypatch.setattr("uploader_cli.transfer.result_poller.record", broken)
    (tmp_path / "a.mp4").write_bytes(bytes(1000))
    with Ready() as service, pytest.raises(RuntimeError, match="of the stage"):
        upload([tmp_path / "a.mp4"], Settings(tus_endpoint=service.url, result_url="{url}", result_done="state=ready"))
