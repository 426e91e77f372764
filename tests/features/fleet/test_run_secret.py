"""The secret of a state directory, from which imports derive their upload keys."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from uploader_cli.features.fleet.run_secret import KEY_FILE, run_secret

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_secret_is_created_once_also_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_how: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with ThreadPoolExecutor(4) as pool:
        (secret,) = set(pool.map(run_secret, [tmp_path] * 8, [7] * 8))
    assert len(secret) == 32
    assert run_secret(tmp_path, 8) != secret
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
