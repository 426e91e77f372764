"""What is read to learn whether the server has a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
from serving import running_server
from time_limits import PATIENCE

from uploader_cli import Settings, upload
from uploader_cli.transfer import stored_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from uploader_cli.core.plan import LocalFile


def test_large_file_of_an_earlier_run_is_not_read_again_where_the_server_knows_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its receipt has no digest, and its size is enough, unless all files are asked for (`--skip-existing`)."""
    read: list[str] = []

    def digest_of(file: LocalFile, checkpoint: Callable[[], None]) -> str | None:
        read.append(file.name)
        return real(file, checkpoint)

    real = stored_files.digest_of
    monkeypatch.setattr(stored_files, "digest_of", digest_of)
    (tmp_path / "large.mp4").write_bytes(bytes(20 << 20))
    with running_server(packs=True) as server:
        known = {"server": server.url, "state_dir": tmp_path / "state"}
        (sent,) = upload([tmp_path / "large.mp4"], Settings(**known)).receipts
        assert sent.url is not None
        asked = requests.head(sent.url, headers={"Want-Repr-Digest": "sha-256=1"}, timeout=PATIENCE)
        assert "Repr-Digest" in asked.headers
        again = upload([tmp_path / "large.mp4"], Settings(**known))
        assert ([one.status for one in again.receipts], read) == (["skipped"], [])
        upload([tmp_path / "large.mp4"], Settings(**known, skip_existing=True))
    assert read == ["large.mp4"]
