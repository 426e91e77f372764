"""`uploader demo`: upload sample files to a server in this process and compare what it stored."""

import hashlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from uploader_cli import signals
from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.features.demo.needs import need_server
from uploader_cli.settings import LEAST_RATE, Invalid, parse_size, resolve

_NAMES = (
    "holiday video.mp4",
    "城市夜景.mp4",
    "notes [draft].txt",
    "party 🎉.avi",
    'it\'s "quoted".bin',
    "long ride.mov",
)
_PIECE = 1 << 20
_PROCESSING = 0.4
"""Simulated processing time of each file in seconds; on loopback the stages would not be visible otherwise."""

_SECONDS = 6
"""Duration of the upload in a terminal, where somebody watches it."""
_FAULT = "cut:patch#3:1M"
"""Closes a connection there in the middle of a file."""

_NEXT = """
Next, run the first two in two terminals:
  {0} serve --root files
  {0} upload -s localhost:8005 YOUR-FILES
  {0} serve --realtime flap:3    (the connection breaks every 3 s)"""


def demo(
    files: Annotated[int, typer.Option("--files", min=1, max=1000, metavar="N", help="Number of sample files.")] = 6,
    size: Annotated[str, typer.Option("--size", metavar="SIZE", help="Total size of the samples.")] = "60M",
    keep: Annotated[str | None, opt.option("--keep", "DIR", "Keep the samples and the stored files in DIR.")] = None,
    **given: Any,
) -> int:
    """Upload sample files to a bundled server and verify them."""
    need_server("`uploader demo`")
    try:
        total = parse_size(size)
    except Invalid as error:
        raise UsageError(f"--size: {error}", hint=error.hint) from None
    if total < files:
        raise UsageError(
            f"--size: {files} files need at least {files} bytes", hint="give a larger size, or fewer files"
        )
    with signals.unwinding(), _workshop(keep) as place:
        return _run(place, files, total, given["progress"])


def _run(place: Path, files: int, total: int, progress: str | None) -> int:
    from uploader_cli.run.commands import upload_command
    from uploader_server.config import ServerConfig
    from uploader_server.serving import EmbeddedServer

    # No setting of the user applies here: neither token nor header.
    asked = {"progress": progress, "server": "localhost"}
    resolve(asked, env={}, cwd=place, user_config=None)  # reports an invalid --progress before anything is created
    sources = make_files(place / "samples", files, total)
    _say(f"Made {files} sample files, {total / (1 << 20):.1f} MiB in total.")
    watched = sys.stderr.isatty()
    faults = (_FAULT,) if watched else ()
    config = ServerConfig(port=0, root=place / "server", analyses=True, processing_seconds=_PROCESSING, faults=faults)
    with EmbeddedServer(config) as server, tempfile.TemporaryDirectory(prefix="uploader-demo-") as state:
        _say(f"Started a server at {server.url}.")
        _say(f"(It simulates {_PROCESSING} s of processing for each file, to show the stages.)")
        if watched:
            _say(f"(--limit-rate makes the upload last {_SECONDS} s; the server cuts one connection.)")
            asked["limit_rate"] = str(max(LEAST_RATE, total // _SECONDS))
        settings = resolve({**asked, "server": server.url, "state_dir": state}, env={}, cwd=place, user_config=None)
        code = upload_command(settings, [str(place / "samples")], lasting=False)
    if code:
        _say("The upload did not succeed, so there is nothing to verify.")
        return code
    return _verify(sources, place / "server")


def _verify(sources: list[Path], root: Path) -> int:
    """Compare the server's files with the sources by name and SHA-256, without asking the client."""
    stored = {(file.name, _sha256(file)) for file in root.rglob("*") if file.is_file()}
    wrong = [source.name for source in sources if (source.name, _sha256(source)) not in stored]
    if wrong:
        _say(f"NOT VERIFIED: the server's copy is missing or differs: {', '.join(map(repr, wrong))}")
        return Exit.INTEGRITY
    _say(f"Verified: the server has all {len(sources)} files, each with the SHA-256 of its source.")
    _say(_NEXT.format(_this_command()))
    return Exit.OK


def _this_command() -> str:
    """Return how the user calls this command: by its path where it is not in PATH, as in a virtual environment."""
    called, found = sys.argv[0], shutil.which("uploader")
    if not os.path.isfile(called) or (found is not None and os.path.samefile(found, called)):
        return "uploader"
    python = shlex.quote(os.path.basename(sys.executable))
    if os.path.basename(called) == "__main__.py":
        return f"{python} -m uploader_cli"
    path = shlex.quote(called if os.sep in called else f"./{called}")
    return path if os.access(called, os.X_OK) else f"{python} {path}"


@contextmanager
def _workshop(keep: str | None) -> Iterator[Path]:
    """Create the demo's directory: a temporary one that is removed afterwards, or `keep`, which must be empty."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="uploader-demo-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    place = Path(os.path.expanduser(keep)).absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
        empty = not any(place.iterdir())
    except OSError as error:
        raise UsageError(f"--keep: {place}: {error.strerror}") from None
    if not empty:
        raise UsageError(f"--keep: {place} is not empty", hint="give an empty or new directory")
    yield place
    _say(f"Files kept in {place / 'samples'} and {place / 'server'}")


def make_files(directory: Path, count: int, total: int) -> list[Path]:
    """Create `count` files of different sizes (1 : 2 : 3 : 1 : 2 …), `total` bytes in all."""
    directory.mkdir()
    weights = [1 + number % 3 for number in range(count)]
    made, left = [], total
    for number, weight in enumerate(weights):
        size = max(1, left * weight // sum(weights[number:]))
        left -= size
        file = directory / (_NAMES[number] if number < len(_NAMES) else f"clip {number + 1:03}.bin")
        with file.open("wb") as out:
            for start in range(0, size, _PIECE):
                out.write(os.urandom(min(_PIECE, size - start)))
        made.append(file)
    return made


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _say(text: str) -> None:
    typer.echo(text, err=True)
