"""Recorded runs: the events of real uploads with their times, which tests play to the reducer and to views.

`cd tests && ../.venv/bin/python -m recorded_runs [NAME…]` records them again, against the bundled server, in real time.
A line has the seconds since the first event, the event's class, and its fields without their defaults.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import msgspec

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.alarms import Alarms
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import Observer, ProgressState

KEPT = Path(__file__).parent / "unit" / "render" / "recorded"
START = 100.0  # the run clock of the first event (seconds)
FRAME = 0.1
THINNED, SELDOM = 0.1, 1.0  # least seconds between two recorded `BytesSent` of a file, or `SessionProgress`


class RecordedRun:
    """A recording that is played; `now` is the run clock, `ended` when the last file of it ends."""

    def __init__(self, name: str, view: Observer | None = None) -> None:
        lines = (json.loads(line) for line in (KEPT / f"{name}.jsonl").read_text("utf-8").splitlines())
        self._events = [(START + at, _event(kind, fields)) for at, kind, fields in lines]
        self.ended = max(at for at, event in self._events if type(event) in (ev.FileCompleted, ev.EngineStopped))
        self.state, self.view, self.now = ProgressState(started=START), view, START
        self._alarms = Alarms()

    def play(self) -> Iterator[float]:
        """Play the run in frames of a tenth of a second; yield the time of each."""
        waiting = iter(self._events)
        following = next(waiting, None)
        while following is not None:
            self.now += FRAME
            while following is not None and following[0] <= self.now:
                self._put(following[1], following[0])
                following = next(waiting, None)
            for event in (ev.Ticked(), *self._alarms.look(self.state, self.now)):
                self._put(event, self.now)
            if self.view is not None:
                self.view.refresh(self.state, self.now)
            yield self.now

    def _put(self, event: ev.Event, now: float) -> None:
        for public in reduce(self.state, event, now):
            if self.view is not None:
                self.view.handle(public, self.state, now)


def _event(kind: str, fields: dict[str, Any]) -> ev.Event:
    if kind == "EngineStopped" and "error" in fields:
        fields["error"] = errors.UploaderError(fields["error"])
        return ev.EngineStopped(**fields)
    if kind == "CallMade":
        fields["request_id"] = None
    event: ev.Event = msgspec.convert(fields, getattr(ev, kind))
    return event


# --- how they are recorded --------------------------------------------------------------------------------------------


class Scenario(NamedTuple):
    """A run of `files` with `size` bytes each; `meanwhile` gets the server and the run, and acts on both.

    `silent`: a port that accepts connections and never answers stands for the server.
    """

    files: int
    size: int
    options: dict[str, Any]
    server: tuple[str, ...] = ()
    meanwhile: Callable[[Server, Any], None] = lambda _server, _sender: None
    silent: bool = False


class SilentServer:
    """A port that accepts connections and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def kill(self) -> None:
        self._socket.close()


class Server:
    """The bundled server as a process, on one port also after a restart."""

    def __init__(self, root: Path, options: tuple[str, ...]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._command = [str(Path(sys.executable).with_name("uploader")), "serve", "--root", str(root / "stored")]
        self._command += ["--port", str(self.port), "--durability", "none", *options]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self, seconds: float) -> None:
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)


def _outage(server: Server, _sender: object) -> None:
    time.sleep(6)
    server.kill()
    time.sleep(8)
    server.start()


def _freeze(server: Server, _sender: object) -> None:
    time.sleep(5)
    server.freeze(12)


def _pause(_server: Server, sender: Any) -> None:
    for seconds in (5, 6):
        time.sleep(seconds)
        sender.toggle_pause()


SCENARIOS = {
    "steady": Scenario(4, 15 << 20, {"limit_rate": "4M"}),
    "small-files": Scenario(200, 29_000, {"limit_rate": "200K"}),
    "outage": Scenario(4, 20 << 20, {"limit_rate": "4M"}, meanwhile=_outage),
    "pause": Scenario(4, 15 << 20, {"limit_rate": "4M"}, meanwhile=_pause),
    "frozen": Scenario(4, 20 << 20, {"limit_rate": "4M"}, meanwhile=_freeze),
    "silent": Scenario(4, 1 << 20, {}, silent=True),
    "retries": Scenario(3, 6 << 20, {"limit_rate": "2M"}, ("--fault", "status:patch#2:500")),
    "processing": Scenario(3, 2 << 20, {"limit_rate": "2M", "protocol": "batch"}, ("--processing", "5")),
}


@contextmanager
def _recording(lines: list[list[Any]], senders: list[Any]) -> Iterator[None]:
    from uploader_cli.run.loop import Loop
    from uploader_cli.transfer.scheduler import Scheduler

    emit, made, lock, last = Loop.emit, Scheduler.__init__, threading.Lock(), dict[tuple[object, ...], float]()

    def note(loop: Loop, event: ev.Event) -> None:
        emit(loop, event)
        with lock:
            now = time.monotonic()
            if isinstance(event, ev.BytesSent | ev.SessionProgress):
                sent = isinstance(event, ev.BytesSent)
                what = (event.file, event.attempt) if isinstance(event, ev.BytesSent) else (event.status,)
                if now - last.get(what, 0.0) < (THINNED if sent else SELDOM) and not getattr(event, "through", False):
                    return
                last[what] = now
            lines.append([now, type(event).__name__, _fields(event)])

    def make(scheduler: Scheduler, *args: Any) -> None:
        made(scheduler, *args)
        senders.append(scheduler)

    with mock.patch.object(Loop, "emit", note), mock.patch.object(Scheduler, "__init__", make):
        yield


def _fields(event: ev.Event) -> dict[str, Any]:
    """Return the fields that have no default, or another value; errors as text, without local files."""
    names = dict(zip(event.__struct_fields__, event.__struct_encode_fields__, strict=True))
    fields = {names[name]: getattr(event, name) for name in names if name not in ("local", "request_id")}
    if isinstance(event, ev.PollFailed):
        del fields["error"]
    defaults = dict(zip([*names.values()][::-1], event.__struct_defaults__[::-1], strict=False))
    kept = {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}
    plain: dict[str, Any] = msgspec.to_builtins(kept, enc_hook=str)
    return plain


def record(name: str) -> None:
    """Run the scenario, and keep what was emitted."""
    import uploader_cli

    scenario, lines, senders = SCENARIOS[name], list[list[Any]](), list[Any]()
    with tempfile.TemporaryDirectory() as home:
        files = Path(home, "videos")
        files.mkdir()
        for number in range(scenario.files):
            (files / f"video-from-the-mountains-{number + 1:02d}.mp4").write_bytes(os.urandom(scenario.size))
        server = SilentServer() if scenario.silent else Server(Path(home), scenario.server)

        def act() -> None:
            time.sleep(1)
            if isinstance(server, Server):
                scenario.meanwhile(server, senders[-1])

        with _recording(lines, senders), suppress(errors.UploaderError):
            threading.Thread(target=act, daemon=True).start()
            url = f"http://127.0.0.1:{server.port}"
            uploader_cli.upload([files], server=url, state_dir=Path(home, "state"), **scenario.options)
        server.kill()
    begin = lines[0][0]
    text = "".join(f"{json.dumps([round(at - begin, 2), kind, fields])}\n" for at, kind, fields in lines)
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{name}.jsonl").write_text(text.replace(home, "").replace(str(server.port), "8005"), "utf-8")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SCENARIOS:
        record(wanted)
