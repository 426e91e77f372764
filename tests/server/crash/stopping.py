"""A server that stops, fails or waits at a planned call, and the rounds that examine each call of an upload.

A round uploads a file, looks at the stored files right after the stop and right after the restart, before any request,
and lets the client finish. What is wrong is returned as a list of findings.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import re
import select
import signal
import socket
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests
from server.crash.uploads import Lost, Refused, Upload
from serving import PATIENT, ServerProcess
from time_limits import PATIENCE

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Make = Callable[..., Upload]

MOST_CALLS = 200
"""More calls than any upload makes, so that a round that never ends fails."""
THEN = ("go on", "meddle", "return", "meddle later")
"""What the first client does after an error; the last two after a restart."""
WARM_UP = 3
"""Uploads whose last request is measured, to know when to send signals."""
AFTER = 0.02
"""Seconds after an answer in which the server may make more calls."""
_NUMBERED = re.compile(r" \(\d+\)(?=\.bin$)")


class Server:
    """The bundled server on one root, started again after each stop."""

    def __init__(self, root: Path, durability: str, *first: str, patient: bool = True) -> None:
        """Start the server with the options `first` of `stoppable`; `patient`: it waits long for a slow disk."""
        self.root = root
        self._constants = PATIENT if patient else {}
        self._options = (*first, "--root", str(root), "--durability", durability)
        self.hit = ""
        """The call at which the plan came true."""
        self.changed: list[str] = []
        """Calls that may have changed a stored file."""
        self.start()

    def start(self, *first: str) -> None:
        """Start the server and wait until it is ready. Raises RuntimeError if it ends before."""
        self._control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._control.settimeout(PATIENCE)
        with theirs:
            how: dict[str, Any] = {"stdin": theirs.fileno(), "constants": self._constants}
            self.process = ServerProcess(*first, *self._options, packs=True, package="stoppable", **how)
        self.url = self.process.url

    def arm(self, **plan: Any) -> None:
        """Count calls from now on, and act at the one of the plan (`stoppable.calls.Plan`)."""
        self.hit = ""
        self._control.send(json.dumps(plan).encode())
        self._acknowledged()

    def disarm(self) -> int:
        """End the plan; return the number of calls since `arm`. Raises OSError if the server has ended."""
        self._control.send(b"null")
        return self._acknowledged()

    def _acknowledged(self) -> int:
        while "calls" not in (told := self._take()):
            if not told:
                raise ConnectionResetError("the server has ended")
        calls: int = told["calls"]
        return calls

    def told(self) -> list[str]:
        """Return the calls so far that may have changed a stored file."""
        self.disarm()
        return self.changed

    def was_hit(self) -> bool:
        """Return whether the plan came true, also just after an answer."""
        while not self.hit and select.select([self._control], [], [], AFTER)[0]:
            if not self._take():
                break
        return bool(self.hit)

    def _take(self) -> dict[str, Any]:
        """Take the next message of the server; none if it has ended."""
        try:
            told: dict[str, Any] = json.loads(self._control.recv(1 << 16) or "{}")
        except ConnectionResetError:
            return {}
        self.hit = told.get("hit", self.hit)
        if "changed" in told:
            self.changed.append(told["changed"])
        return told

    def ended(self) -> None:
        """Wait until the server has ended."""
        while self._take():
            pass
        self.process.process.wait(PATIENCE)
        self.process.kill()  # frees its pipes
        self._control.close()

    def end(self, number: int) -> None:
        """Send a signal and wait for the end."""
        self.process.process.send_signal(number)
        self.ended()

    def close(self) -> None:
        """Kill the server."""
        self.process.kill()
        self._control.close()


@contextlib.contextmanager
def server_on(root: Path, durability: str, *first: str, patient: bool = True) -> Iterator[Server]:
    """Run a server; kill it at the end."""
    server = Server(root, durability, *first, patient=patient)
    try:
        yield server
    finally:
        server.close()


@dataclass
class Stored:
    """What must be true for the files below the root at every moment."""

    root: Path
    findings: list[str] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    """Statuses other than successes after a call that failed."""

    def restarted(self, when: str, *uploads: Upload) -> None:
        """Look after a restart, before any request: the database knows the data of every upload, or clears it up."""
        self.look(when, *uploads)
        if (lost := self.root / ".uploader" / "lost").exists():
            self.note(f"{when}: lost {', '.join(path.name for path in lost.iterdir())}")

    def look(self, when: str, *uploads: Upload) -> None:
        """Look for files that are short or changed, and for confirmed ones that are gone (of all by default)."""
        uploads = uploads or tuple(self.uploads)
        for upload in uploads:
            known = upload.files
            found = {path.relative_to(self.root).as_posix(): path for path in self._of(upload)}
            for name, path in found.items():
                data, plain = path.read_bytes(), _NUMBERED.sub("", name)
                wanted = upload.allowed.get(plain, set()) if plain != name else {known.get(name, b"?")}
                if data not in wanted:
                    sent = known.get(plain, b"")
                    equal = f"{_equal(data, sent):,} equal of {len(sent):,}"
                    self.note(f"{when}: {name} has {len(data):,} bytes, {equal}")
            gone = sorted(known.keys() - found.keys()) if upload.confirmed else []
            if gone:
                self.note(f"{when}: {gone[0]} was confirmed and is not there")

    def _of(self, upload: Upload) -> list[Path]:
        personal = self.root / "personal"
        found = list(personal.glob(f"{upload.name}.bin")) + list(personal.glob(f"{upload.name} (*).bin"))
        return found + [path for path in (personal / upload.name).rglob("*") if path.is_file()]

    def finally_(self, when: str, *uploads: Upload) -> None:
        """Look at the end: everything is stored, once."""
        self.look(when, *uploads)
        for upload in uploads or self.uploads:
            names = {path.relative_to(self.root).as_posix() for path in self._of(upload)}
            if missing := upload.files.keys() - names:
                self.note(f"{when}: {min(missing)} is not stored")
            if len(upload.allowed[min(upload.allowed)]) == 1 and names - upload.files.keys():
                self.note(f"{when}: stored twice: {min(names - upload.files.keys())}")

    def and_(self, changed: list[str]) -> Stored:
        """Add what the server reported about calls that may have changed a stored file."""
        self.findings += changed
        return self

    def note(self, finding: str) -> None:
        """Keep a finding."""
        self.findings.append(finding)


def _equal(data: bytes, other: bytes) -> int:
    """Return the number of equal bytes at the beginning."""
    return next(
        (at for at, (one, two) in enumerate(zip(data, other, strict=False)) if one != two), min(len(data), len(other))
    )


def _goes_on(stored: Stored, when: str, upload: Upload, url: str) -> None:
    """Let a client finish; whatever it can't is a finding."""
    try:
        for _ in range(3):  # the server may ask for a retry
            try:
                upload.run(url)
                break
            except Refused as refused:
                if refused.status not in (200, 409, 423, 503):
                    raise
        else:
            stored.note(f"{when}: can't be finished")
    except (Lost, Refused, AssertionError, requests.RequestException) as error:
        stored.note(f"{when}: can't be finished: {type(error).__name__} {error}")


def stop_at_each_call(server: Server, make: Make, action: str, then: Sequence[str] = ("go on",), **plan: Any) -> Stored:
    """Kill or stop the server at the first call of an upload, then at the second of another one …

    After the restart the client goes on; or another one uploads the same bytes, and the first meddles.
    """
    stored = Stored(server.root)
    for number, following in itertools.product(range(1, MOST_CALLS), then):
        name = f"{action}-{number}-{following}".replace(" ", "-")
        upload = make(name, key=name).begin(server.url)
        server.arm(at=number, action=action, **plan)
        with contextlib.suppress(Lost, Refused):
            upload.run(server.url)
        if not server.was_hit():
            break
        server.ended()
        where = f"{action} before call {number}, {server.hit}"
        if following == "go on":
            _restart(server, stored, where, upload)
            continue
        second = make(name, key=f"{name}-second")
        stored.look(f"{where}: before the restart", upload)
        server.start()
        stored.restarted(f"{where}: after the restart", upload)
        _goes_on(stored, f"{where}: another client", second.begin(server.url), server.url)
        if not upload.confirmed:
            upload.meddle(server.url)
            second.allowed = upload.allowed
        stored.finally_(f"{where}: after a client that meddles", second)
        stored.uploads.append(second)
    else:
        raise AssertionError("each call was reached")
    server.end(signal.SIGKILL)
    stored.look("before the last restart")
    server.start()
    stored.finally_("after the last restart")
    return stored.and_(server.told())


def _restart(server: Server, stored: Stored, where: str, upload: Upload) -> None:
    """Look after a stop and after the restart, and let the client finish."""
    stored.look(f"{where}: before the restart", upload)
    server.start()
    stored.restarted(f"{where}: after the restart", upload)
    _goes_on(stored, where, upload, server.url)
    stored.finally_(f"{where}: at the end", upload)
    stored.uploads.append(upload)


def stop_at_each_call_of_the_start(server: Server, make: Make) -> Stored:
    """Kill the server at each call of an upload, and each time also at each call of the starts that follow."""
    stored = Stored(server.root)
    for number in range(1, MOST_CALLS):
        upload = make(f"twice-{number}", key=f"twice-{number}").begin(server.url)
        server.arm(at=number, action="kill")
        with contextlib.suppress(Lost, Refused):
            upload.run(server.url)
        if not server.was_hit():
            break
        server.ended()
        where = f"kill before call {number}, {server.hit}"
        for again in range(1, MOST_CALLS):
            stored.look(f"{where}: before call {again} of the start", upload)
            with contextlib.suppress(RuntimeError, OSError):
                server.start("--kill-at", str(again))
                server.disarm()
                break
            server.close()
        else:
            raise AssertionError("the server never starts")
        stored.restarted(f"{where}: after the restarts", upload)
        _goes_on(stored, where, upload, server.url)
        stored.finally_(f"{where}: at the end", upload)
        stored.uploads.append(upload)
    stored.finally_("after the last restart")
    return stored.and_(server.told())


def fail_each_call(
    server: Server, make: Make, error: int, *, onwards: bool = False, then: Sequence[str] = THEN
) -> Stored:
    """Let the first call of an upload fail, then the second of another one …

    Each time another client uploads the same bytes to the same name and is confirmed. The first one goes on, or sends
    other bytes if it can, or does so after a restart.
    """
    stored, later = Stored(server.root), list[tuple[Upload, Upload]]()
    for number, following in itertools.product(range(1, MOST_CALLS), then):
        name = f"{errno.errorcode[error]}-{number}-{following}".replace(" ", "-")
        first = make(name, key=f"{name}-first").begin(server.url)
        second = make(name, key=f"{name}-second").begin(server.url)
        server.arm(at=number, action="fail", number=error, onwards=onwards)
        where = ""
        try:
            first.run(server.url)
        except Refused as refused:
            where = f"{refused.status} "
            stored.refusals.append(refused.status)
        server.disarm()
        if not server.hit:
            break
        where += f"after {errno.errorcode[error]} in call {number}, {server.hit}"
        stored.look(f"{where}: then", first)
        _goes_on(stored, f"{where}: another client", second, server.url)
        stored.look(f"{where}: after another client", second)
        if following == "go on":
            _goes_on(stored, f"{where}: the first client", first, server.url)
        elif following == "meddle" and not first.confirmed:
            first.meddle(server.url)
            second.allowed = first.allowed
        else:
            later.append((first, second))
        stored.finally_(f"{where}: when the first client wants to {following}", second)
        stored.uploads.append(second)
    else:
        raise AssertionError("each call was reached")
    server.end(signal.SIGKILL)
    stored.look("before the restart")
    server.start()
    stored.finally_("after the restart")
    for first, second in later:
        if first.name.endswith("meddle-later") and not first.confirmed:
            first.meddle(server.url)
            second.allowed = first.allowed
        else:
            _goes_on(stored, f"{first.name}: the first client, after the restart", first, server.url)
    stored.finally_("at the end")
    return stored.and_(server.told())


def kill_near_the_end(server: Server, make: Make, number: int, kills: int, chance: random.Random) -> Stored:
    """Send a signal to the server at a random moment of the last request of an upload, `kills` times."""
    stored, took = Stored(server.root), list[float]()
    for count in range(-WARM_UP, kills):
        name = f"{signal.Signals(number).name}-{count}"
        upload = make(name, key=name).begin(server.url)
        if count < 0:
            began: list[float] = []
            upload.run(server.url, lambda began=began: began.append(time.monotonic()))
            took.append(time.monotonic() - began[0])
            continue
        delay = chance.uniform(0, 1.3 * statistics.median(took))
        timer = threading.Timer(delay, server.process.process.send_signal, (number,))
        with contextlib.suppress(Lost, Refused):
            upload.run(server.url, timer.start)
        timer.join()
        server.ended()
        where = f"{signal.Signals(number).name} {delay * 1000:.1f} ms after the last request"
        _restart(server, stored, where, upload)
    stored.finally_("after all kills")
    return stored.and_(server.told())


def stop_during_slow_call(server: Server, make: Make, seconds: float, **plan: Any) -> tuple[float, Stored]:
    """Stop the server (SIGTERM) while a call of the last request takes `seconds`; return how long its end took.

    If the request makes no such call, that is 0.
    """
    stored = Stored(server.root)
    upload, armed = make("slow", key="slow").begin(server.url), threading.Event()

    def arm() -> None:
        server.arm(action="sleep", seconds=seconds, **plan)
        armed.set()

    def send() -> None:
        with contextlib.suppress(Lost, Refused):
            upload.run(server.url, arm)

    sending = threading.Thread(target=send)
    sending.start()
    armed.wait(PATIENCE)
    while not server.was_hit():
        if not sending.is_alive():
            return 0.0, stored
    began = time.monotonic()
    server.end(signal.SIGTERM)
    took = time.monotonic() - began
    sending.join()
    _restart(server, stored, f"SIGTERM during {server.hit}", upload)
    return took, stored.and_(server.told())
