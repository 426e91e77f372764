"""Client and server as processes of their own: the bundled server, and `uploader upload` or `resume`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forking
from command import environment
from serving import free_port
from time_limits import PATIENCE

from chaos.plan import FROZEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.plan import Strike

LATEST = 4.0
"""Seconds after the start of a client at which a strike comes if the client prints too few events."""
DEADLINE = 150.0
"""Seconds without an event after which a client hangs: every pause of a plan is much shorter."""


class Find(Exception):
    """A violated invariant."""


@dataclass(frozen=True)
class Secrets:
    """Words that no output may contain."""

    token: str = field(default_factory=lambda: "tok-" + secrets.token_hex(12))
    header: str = field(default_factory=lambda: "hdr-" + secrets.token_hex(12))
    password: str = field(default_factory=lambda: "pwd-" + secrets.token_hex(12))

    @property
    def words(self) -> tuple[bytes, ...]:
        """All secrets as bytes."""
        return tuple(word.encode() for word in (self.token, self.header, self.password))


class Server:
    """The bundled server with one root and port, which survive kills and restarts."""

    def __init__(self, directory: Path, options: Sequence[str], token: str) -> None:
        """Keep output, access log and temporary files in `directory`, stored files in `directory/root`."""
        self.directory, self.root, self.port = directory, directory / "root", free_port()
        self.temporary = directory / "tmp"
        self.temporary.mkdir(parents=True)
        self._token = directory / "token"
        self._token.write_text(token)
        self._options = list(options)
        self.process: forking.Forked | subprocess.Popen[str] | None = None

    def start(self, rules: Sequence[str] = ()) -> None:
        """Start the server and wait until it is ready. Raises Find if it does not start."""
        line = ["--root", self.root, "--port", str(self.port), "--auth-token-file", self._token]
        line += ["--access-log", self.directory / "access.log", *self._options, "--fault-control"]
        line += [part for rule in rules for part in ("--fault", rule)]
        env = environment(self.directory, TMPDIR=str(self.temporary))
        with (self.directory / "output.txt").open("ab") as output:
            before = output.tell()
            streams = {"stdout": output, "stderr": output}
            self.process = forking.start("uploader_server", line, cwd=None, env=env, new_session=True, **streams)
        until = time.monotonic() + PATIENCE
        while b"server ready on" not in (self.directory / "output.txt").read_bytes()[before:]:
            if self.process.poll() is not None:
                raise Find(f"the server did not start: exit code {self.process.returncode}")
            if time.monotonic() > until:
                raise Find(f"the server did not start within {PATIENCE} s")
            time.sleep(0.02)

    @property
    def address(self) -> tuple[str, str]:
        """The option that names the server."""
        return "--server", self.url

    @property
    def url(self) -> str:
        """The base URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def change(self, rules: Sequence[str]) -> None:
        """Replace all faults of the server by these."""
        self._faults("DELETE")
        self._faults("POST", json.dumps({"rules": list(rules)}))

    def hits(self) -> int:
        """Return the number of requests and events that the current faults changed."""
        return sum(rule["hits"] for rule in self._faults("GET")["rules"])

    def _faults(self, method: str, body: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token.read_text()}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                connection.connect()
                break
            except ConnectionRefusedError:  # the fault `restart` is at work
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        connection.request(method, "/faults", body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status != 200:
            raise Find(f"/faults answered {answer.status}: {text[:500]}")
        return json.loads(text)

    def restart(self, number: int, rules: Sequence[str], down: float, look: Callable[[str], None]) -> None:
        """End the server by SIGKILL or SIGTERM and start it `down` seconds later; `look` before and after the start."""
        name = signal.Signals(number).name
        if number == signal.SIGTERM:
            self.stop()
        else:
            self.kill()
        look(f"after {name}")
        time.sleep(down)
        self.start(rules)
        look(f"after {name} and a restart")

    def freeze(self, seconds: float) -> None:
        """Stop the process for this many seconds."""
        os.kill(self.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the server (SIGKILL)."""
        if self.process is not None:
            _kill_group(self.process)

    def stop(self) -> None:
        """Stop the server (SIGTERM). Raises Find if it does not exit soon with code 0."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE / 2)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Find("the server does not stop after SIGTERM") from None
        if code:
            raise Find(f"the server stopped with exit code {code}")


@dataclass
class Ended:
    """A finished call of the client."""

    code: int
    out: str
    err: str
    sent: list[int]
    """Signals that reached the client while it ran."""
    strikes: int
    """Those, and the kills of the server."""
    directory: Path
    """Where its report, list and log are."""

    @property
    def killed(self) -> bool:
        """Whether the call was ended by SIGKILL."""
        return self.code == -signal.SIGKILL


class Client:
    """`uploader ARGUMENTS` with its own home directory; its output goes to files in `directory`."""

    def __init__(
        self, directory: Path, home: Path, options: Sequence[str], paths: Sequence[Path | str], env: dict[str, str]
    ) -> None:
        directory.mkdir(parents=True)
        self._directory, self._strikes = directory, 0
        temporary = home / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        line: list[str | Path] = [*options, "--json", "--report", directory / "report.json"]
        line += ["--failed-to", directory / "failed.jsonl", "--log-file", directory / "log.jsonl"]
        line += ["--", *paths] if paths else []
        (directory / "command.txt").write_text("\n".join(["uploader", *map(str, line)]))
        with (directory / "out.jsonl").open("wb") as out, (directory / "err.txt").open("wb") as err:
            env = environment(home, **{"TMPDIR": str(temporary), **env})
            self.process = forking.start(
                "uploader_cli", line, cwd=home, env=env, stdout=out, stderr=err, free=False, new_session=True
            )

    def run(
        self,
        strikes: Sequence[Strike],
        server: Server,
        rules: Sequence[str],
        look: Callable[[str], None],
        other: Callable[[Strike], None] = lambda _: None,
    ) -> Ended:
        """Send the signals and wait for the end. Raises Find if the process does not end, and what `look` raises.

        `look` is called after each end of the server, before and after its restart; `other` does what others do.
        """
        started, left, sent = time.monotonic(), list(strikes), list[int]()
        events, due, heard = 0, None, started
        with (self._directory / "out.jsonl").open("rb") as out:
            while self.process.poll() is None:
                now = time.monotonic()
                if lines := out.read().count(b"\n"):
                    events, heard = events + lines, now
                if left and due is None and (events >= left[0].events or now > started + LATEST):
                    due = now + left[0].delay
                if left and due is not None and now >= due:
                    due = None
                    strike = left.pop(0)
                    if strike.act:
                        other(strike)
                    else:
                        self._strike(strike, server, rules, sent, look)
                if now > heard + DEADLINE:
                    self.process.send_signal(signal.SIGABRT)
                    _kill_group(self.process)
                    raise Find(f"the client neither ended nor said anything for {DEADLINE:.0f} s")
                time.sleep(0.003)
        _no_process_left(self.process.pid)
        return Ended(
            self.process.returncode,
            (self._directory / "out.jsonl").read_text(encoding="utf-8", errors="surrogateescape"),
            (self._directory / "err.txt").read_text(encoding="utf-8"),
            sent,
            self._strikes,
            self._directory,
        )

    def _strike(
        self, strike: Strike, server: Server, rules: Sequence[str], sent: list[int], look: Callable[[str], None]
    ) -> None:
        if strike.number == signal.SIGSTOP:
            server.freeze(FROZEN)
            self._strikes += 1
        elif strike.whom == "server":
            server.restart(strike.number, rules, strike.delay, look)
            self._strikes += 1
        elif strike.number == signal.SIGKILL or self._has_begun():
            self.process.send_signal(strike.number)
            sent.append(strike.number)
            self._strikes += 1

    def _has_begun(self) -> bool:
        """Wait until the client handles signals; return False if it ends before.

        The interpreter handles none before the client's first line. SIGHUP is checked because coverage installs a
        handler of SIGTERM earlier.
        """
        while self.process.poll() is None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends between the two questions
                if int(_status(self.process.pid)["SigCgt"], 16) >> (signal.SIGHUP - 1) & 1:
                    return True
            time.sleep(0.002)
        return False

    def kill(self) -> None:
        """Kill the client if it is still running."""
        _kill_group(self.process)


def _kill_group(process: forking.Forked | subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # one that has no group yet
    process.wait()


def _no_process_left(group: int) -> None:
    """Raise Find if a process of this group stays alive."""
    until = time.monotonic() + PATIENCE / 2
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)
        raise Find("the client left a process behind")


def _status(pid: int) -> dict[str, str]:
    return dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


@dataclass(frozen=True)
class Held:
    """The resources that a process uses."""

    memory: int
    """Resident bytes."""
    threads: int
    descriptors: int

    @classmethod
    def by(cls, pid: int) -> Held:
        """Return the current resources of a process."""
        status = _status(pid)
        memory = int(status["VmRSS"].split()[0]) << 10
        return cls(memory, int(status["Threads"]), len(os.listdir(f"/proc/{pid}/fd")))

    def __str__(self) -> str:
        return f"{self.memory / (1 << 20):.0f} MiB, {self.threads} threads, {self.descriptors} descriptors"
