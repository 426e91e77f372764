"""For test authors: the bundled server in this process, what goes wrong there, and what has arrived."""

from __future__ import annotations

import difflib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uploader_cli.cli.server_extra import need_server_extra
from uploader_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from uploader_server.config import ServerConfig
    from uploader_server.faults import Faults
    from uploader_server.serving import EmbeddedServer

_OURS = ("host", "port")
"""What a test has no say in: the port is a free one of this machine."""


class UploadServer:
    """A running server. After its end no thread, socket or file of it is left."""

    def __init__(self, server: EmbeddedServer) -> None:
        """Starts it. Raises `StartupError`."""
        self._server = server
        server.start()

    @property
    def url(self) -> str:
        """Where it answers, as `http://127.0.0.1:54321`."""
        return self._server.url

    @property
    def faults(self) -> Faults:
        """What is broken, to be changed at any time; and, in `faults.requests`, the calls that were made."""
        return self._server.faults

    @property
    def files(self) -> dict[str, Path]:
        """What has arrived as a whole: `category/relative/path` to where it lies on this disk, ordered by name."""
        root = self._server.root
        found = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
        return {name.as_posix(): path for name, path in sorted(found.items()) if not name.parts[0].startswith(".")}

    def __enter__(self) -> UploadServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop()


def running_server(marks: Iterable[tuple[Sequence[Any], Mapping[str, Any]]] = ()) -> UploadServer:
    """Start a server as the arguments of markers ask for, the closest marker first.

    Raises `UsageError` for an option that there isn't or that the server refuses, and without the extra `server`.
    """
    need_server_extra("the fixture `upload_server`")
    from uploader_server.config import StartupError
    from uploader_server.serving import EmbeddedServer

    options: dict[str, Any] = {}
    answers: list[tuple[str, str, Sequence[Any]]] = []
    for positional, named in marks:
        if positional:
            raise UsageError(f"upload_faults: {positional[0]!r} has no name", hint="write upload_faults(latency_ms=50)")
        answers += _answers(named.get("answers", {}))
        options = {**{name: value for name, value in named.items() if name != "answers"}, **options}
    try:
        server = UploadServer(EmbeddedServer(_config(options)))
    except StartupError as error:
        raise UsageError(f"upload_server: {error}") from None
    for method, path, script in answers:
        server.faults.next_answers(method, path, script)
    return server


def _config(options: Mapping[str, Any]) -> ServerConfig:
    from uploader_server.config import ServerConfig

    known = [field.name for field in fields(ServerConfig) if field.name not in _OURS]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "answers"], n=1, cutoff=0)[0]
            raise UsageError(f"upload_faults: there is no option {name!r}", hint=f"the nearest is {near}")
    fitting: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    if fitting.get("root") is not None:
        fitting["root"] = Path(fitting["root"])
    try:
        return ServerConfig(**fitting)
    except ValueError as error:
        raise UsageError(f"upload_faults: {error}", hint="see docs/testing.md") from None


def _answers(asked: Any) -> Iterator[tuple[str, str, Sequence[Any]]]:
    """`{"POST /api/upload/session": [503]}` → method, path and the answers in their order."""
    if not isinstance(asked, dict):
        raise UsageError(f"upload_faults: answers is no dictionary: {asked!r}", hint=_ANSWERS)
    for call, script in asked.items():
        method, _, path = str(call).partition(" ")
        if not path.startswith("/") or not isinstance(script, list | tuple):
            raise UsageError(f"upload_faults: answers: {call!r}: {script!r} can't be read", hint=_ANSWERS)
        yield method.upper(), path, script


_ANSWERS = 'write answers={"POST /api/upload/session": [503, None]}'
