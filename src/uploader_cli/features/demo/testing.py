"""For test authors: the bundled server in this process, its faults and its files."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uploader_cli.errors import UsageError
from uploader_cli.features.demo.needs import need_server
from uploader_cli.settings.spelling import guess

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from uploader_server.faults import Faults
    from uploader_server.serving import EmbeddedServer

_OURS = ("host", "port")
"""Options that a test can't set: the server listens on a free local port."""


class UploadServer:
    """A running server. Stopping it leaves no thread, socket or file."""

    def __init__(self, server: EmbeddedServer) -> None:
        """Start the server. Raises `StartupError`."""
        self._server = server
        server.start()

    @property
    def url(self) -> str:
        """The base URL, as `http://127.0.0.1:54321`."""
        return self._server.url

    @property
    def faults(self) -> Faults:
        """The faults, which can be changed at any time; `faults.requests` lists the requests."""
        return self._server.faults

    @property
    def files(self) -> dict[str, Path]:
        """The completely received files: `category/relative/path` to the local path, sorted by name."""
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
    """Start a server with the arguments of the markers, the closest marker first.

    Raises `UsageError` for an unknown or invalid option, and without the extra `server`.
    """
    need_server("the fixture `upload_server`")
    from uploader_server.config import ServerConfig
    from uploader_server.options import StartupError
    from uploader_server.serving import EmbeddedServer

    options: dict[str, Any] = {}
    answers: list[tuple[str, str, Sequence[Any]]] = []
    for positional, named in marks:
        if positional:
            raise UsageError(f"upload_faults: {positional[0]!r} has no name", hint="write upload_faults(latency_ms=50)")
        answers += _answers(named.get("answers", {}))
        options = {**{name: value for name, value in named.items() if name != "answers"}, **options}
    known = [field.name for field in fields(ServerConfig) if field.name not in _OURS]
    for name, value in options.items():
        if name not in known:
            hint = guess(name, [*known, "answers"], "see docs/tasks/embed.md")
            raise UsageError(f"upload_faults: unknown option {name!r}", hint=hint)
        options[name] = tuple(value) if isinstance(value, list) else value
    if options.get("root") is not None:
        options["root"] = Path(options["root"])
    try:
        server = UploadServer(EmbeddedServer(ServerConfig(**options)))
    except StartupError as error:
        raise UsageError(f"upload_server: {error}") from None
    except ValueError as error:
        raise UsageError(f"upload_faults: {error}", hint="see docs/tasks/embed.md") from None
    for method, path, script in answers:
        server.faults.next_answers(method, path, script)
    return server


def _answers(asked: Any) -> Iterator[tuple[str, str, Sequence[Any]]]:
    """Parse `{"POST /api/upload/session": [503]}` into method, path and the responses in order."""
    if not isinstance(asked, dict):
        raise UsageError(f"upload_faults: answers must be a dictionary, not {asked!r}", hint=_ANSWERS)
    for call, script in asked.items():
        method, _, path = str(call).partition(" ")
        if not path.startswith("/") or not isinstance(script, list | tuple):
            raise UsageError(f"upload_faults: answers: {call!r}: invalid responses {script!r}", hint=_ANSWERS)
        yield method.upper(), path, script


_ANSWERS = 'write answers={"POST /api/upload/session": [503, None]}'
