"""The client of resumable-upload uploads to the bundled server, and the stored bytes are equal."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from interop.foreign import Destination

pytestmark = [pytest.mark.interop, pytest.mark.partner("resumable-upload, client", "resumable-upload")]

NAME = "Grüße 東京.bin"


def command(python: Path, destination: Destination, file: Path, *options: str) -> list[str | Path]:
    given = [f"--metadata={key}={value}" for key, value in destination.metadata(NAME).items()]
    upload = [python / "bin/resumable-upload", "upload", file, "--url", destination.endpoint, "--no-progress"]
    return [*upload, *given, *options]


def upload(*line: str | Path, cwd: Path) -> str:
    """Run the command and return the URL that it prints."""
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.mark.parametrize(
    ("options", "size"),
    [
        pytest.param(("--checksum", "none"), 0, id="empty", marks=pytest.mark.cases("empty")),
        pytest.param(("--checksum", "sha1"), 50_000_000, id="sha1", marks=pytest.mark.cases("50 MB", "checksum")),
        pytest.param(("--checksum", "sha256", "--chunk-size", "300000"), 1 << 20, id="sha256"),
        pytest.param(("--parallel", "3"), 1 << 20, id="parts"),
    ],
)
@pytest.mark.cases("upload", "unicode")
def test_resumable_upload_uploads(
    python: Path,
    destination: Destination,
    make_file: Callable[[str, int], Path],
    tmp_path: Path,
    options: tuple[str, ...],
    size: int,
) -> None:
    file = make_file("a.bin", size)
    url = upload(*command(python, destination, file, *options), cwd=tmp_path)
    destination.check(url, NAME, file.read_bytes())
