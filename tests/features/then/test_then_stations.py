"""The order in which files are deleted and reported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from serving import running_server

from uploader_cli import upload
from uploader_cli.features.then import removal
from uploader_cli.transfer.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.results import FileResult


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

    monkeypatch.setattr("uploader_cli.features.then.stations.delete", delete)
    monkeypatch.setattr(Ledger, "end", ended)
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode() * 1000)
    with running_server(packs=True) as server:
        result = upload([tmp_path], server=server.url, then="delete")
    assert result.ok
    assert len(steps) == 6
    assert all(
        steps[n : n + 2] == [("deleted", name), ("ended", name)] for n, (_, name) in enumerate(steps) if not n % 2
    )
