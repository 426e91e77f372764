"""`--report FILE.sha256`: the digests that `sha256sum -c` checks."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from command import uploader
from serving import running_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("how", [(), ("--no-pack",)], ids=["packs", "tus"])
def test_list_of_digests_is_that_of_sha256sum(
    how: tuple[str, ...], make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """Names are escaped as sha256sum does; a file that failed is not listed. The digests are computed for the list."""
    names = ["empty", "a b", "-c", "with\nline", "back\\slash", "carriage\r", "旅行"]
    files = make_files(**{name: name.removeprefix("empty").encode() for name in names})
    os.rename(files / "-c", os.fsencode(files) + b"/not-utf8-\xff")
    make_files(**{"no.tmp": 1})
    with running_server(fail_files=("no.tmp",), packs=True) as server:
        options = ("-s", server.url, "--report", "files.sha256", "--json", *how)
        done = uploader("upload", "files", *options, home=tmp_path)
    assert done.code in (3, 4)
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "files.sha256"], cwd=tmp_path, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout.count(b": OK")) == (0, len(names)), checked
    theirs = subprocess.run(["sha256sum", *files.iterdir()], cwd=tmp_path, capture_output=True, check=True).stdout
    ours = (tmp_path / "files.sha256").read_bytes().splitlines()
    expected = theirs.replace(os.fsencode(tmp_path) + b"/", b"").splitlines()
    assert sorted(ours) == sorted(line for line in expected if not line.endswith(b"no.tmp"))
