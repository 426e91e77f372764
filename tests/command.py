"""Run `uploader` in a separate process, with its own home directory; read its events while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import forking
import jsonschema
from forking import DEVNULL, PIPE
from time_limits import PATIENCE

from uploader_cli.render.event_schema import schema_text
from uploader_cli.transfer import tus_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Process: TypeAlias = forking.Forked | subprocess.Popen[str]

DEADLINE = 2 * PATIENCE
DISTANT = {"uploader_cli.transfer.tus_state.FAR": tus_state.FAR}
NEAR = dict.fromkeys([*DISTANT, "uploader_cli.selection.selection.AHEAD_SECONDS"], PATIENCE)
"""Constants of all commands: to a busy machine its own server may look `DISTANT`, and its own disk slow."""
QUICK_LOOKS = {"uploader_cli.transfer.protocols.batch.LOOK_AT_LEAST": 0.2}
"""Seconds between two looks for the outcome of a lost answer; five looks without one make it unknown."""
_SCHEMA = json.loads(schema_text())
VALIDATORS = {
    kind["properties"]["type"]["const"]: jsonschema.Draft202012Validator({**kind, "$defs": _SCHEMA["$defs"]})
    for kind in _SCHEMA["oneOf"]
}
"""The schema of each type of event: to look through all of them for each event takes longer than the run."""


@dataclass
class Done:
    """The result of a command: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The event stream, each line checked against the schema and against `check_stream`."""
        events = [json.loads(line) for line in self.out.splitlines()]
        check_stream(events)
        return events

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one type."""
        return [event for event in self.events if event["type"] == kind]

    @property
    def finished(self) -> dict[str, Any]:
        """The last event."""
        return self.events[-1]


def environment(home: Path, **extra: str) -> dict[str, str]:
    """Return the environment without the settings of the user who runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("UPLOADER_")}
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    for name in ("CI", "GITHUB_STEP_SUMMARY", "NO_COLOR", "FORCE_COLOR", *proxies):
        kept.pop(name, None)
    homes = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "XDG_CONFIG_HOME": str(home / "config")}
    return {**kept, **homes, "PYTHONUTF8": "1", "UPLOADER_WAIT_FOR_SERVER": "3", **extra}


def start(
    *arguments: str | Path,
    home: Path,
    stdin: int | IO[Any] = DEVNULL,
    stdout: int | IO[Any] = PIPE,
    stderr: int | IO[Any] = PIPE,
    fresh: bool = False,
    free: bool = False,
    on_terminal: bool = False,
    constants: Mapping[str, float] | None = None,
    imported: tuple[str, ...] = (),
    **extra: str,
) -> Process:
    """Start the command with its own home directory; `extra` are environment variables.

    The other keywords are those of `forking.start`.
    """
    how: dict[str, Any] = {"stdin": stdin, "stdout": stdout, "stderr": stderr, "fresh": fresh, "free": free}
    how |= {"on_terminal": on_terminal, "constants": {**NEAR, **(constants or {})}, "imported": imported}
    return forking.start("uploader_cli", arguments, cwd=home, env=environment(home, **extra), **how)


def finish(process: Process) -> Done:
    """Wait for a started command; after `DEADLINE` kill it and raise TimeoutExpired."""
    try:
        out, err = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


def uploader(*arguments: str | Path, home: Path, **how: Any) -> Done:
    """Run the command and return its result; keywords are those of `start`."""
    return finish(start(*arguments, home=home, **how))


def read_until(process: Process, kind: str, when: Callable[[dict[str, Any]], bool] = lambda _event: True) -> str:
    """Read the stream up to the first matching event of this type; return what was read."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        event = json.loads(line)
        if event["type"] == kind and when(event):
            return seen
    raise AssertionError(f"no such {kind} in {seen}")


def read_confirmed(process: Process, least: int) -> str:
    """Read until the server has confirmed at least this many bytes of a file."""
    return read_until(process, "file.progress", lambda event: event["confirmed"] >= least)


def ended(process: Process, seen: str, *signals: int) -> Done:
    """Send signals, wait for the end (killed after `DEADLINE`), and return the run including what was `seen`.

    `communicate` would lose the buffered rest of the lines that were read before.
    """
    for number in signals:
        process.send_signal(number)
    said: list[str] = []
    with process:
        watchdog = threading.Timer(DEADLINE, process.kill)
        reader = threading.Thread(target=lambda: said.append(process.stderr.read() if process.stderr else ""))
        watchdog.start()
        reader.start()
        assert process.stdout is not None
        rest = process.stdout.read()
        reader.join()
        watchdog.cancel()
    assert "Traceback" not in "".join(said)
    return Done(process.returncode, seen + rest, "".join(said))


def workers_of(pid: int) -> list[int]:
    """Return the worker processes that a command has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return found


def check_stream(events: list[dict[str, Any]]) -> None:
    """Check what is true for the event stream of any run."""
    for event in events:
        VALIDATORS[event["type"]].validate(event)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert len({event["run"] for event in events}) == 1
    kinds = [event["type"] for event in events]
    assert kinds[0] == "run.started"
    assert kinds[-1] == "run.finished"
    assert kinds.count("run.started") == kinds.count("run.finished") == 1
    sessions = Counter(event["session"] for event in events if event["type"] == "session.finished")
    created = {event["session"] for event in events if event["type"] == "session.created"}
    assert created <= sessions.keys()
    assert set(sessions.values()) <= {1}
    _check_files(events)


def _check_files(events: list[dict[str, Any]]) -> None:
    """Check that no number falls within an attempt, attempts only rise, and each file ends once."""
    last: dict[Any, dict[str, Any]] = {}
    ended: set[Any] = set()
    for event in events:
        number = event.get("file")
        if event["type"] in ("file.completed", "file.failed", "file.skipped"):
            assert number not in ended
            ended.add(number)
        if event["type"] != "file.progress":
            continue
        before = last.get(number)
        if before is not None:
            assert event["attempt"] >= before["attempt"]
            if event["attempt"] == before["attempt"]:
                assert event["sent"] >= before["sent"]
                assert event["confirmed"] >= before["confirmed"]
                assert event.get("server_percent", 0) >= before.get("server_percent", 0)
        assert 0 <= event["confirmed"] <= event["sent"]
        last[number] = event
