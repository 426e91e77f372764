"""Start commands by forking a process that has already imported everything.

Starting Python and importing the modules of an upload takes several times the CPU time of the upload itself. A forked
command is still a separate process with its own pid, signals, descriptors, environment, working directory and exit.
This works only on Linux (macOS restricts forked processes, Windows has none); elsewhere a command is a new Python.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import inspect
import json
import mimetypes
import os
import pkgutil
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AVAILABLE = sys.platform == "linux"
PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL
RUN = "FORKED_COMMANDS_OF"
"""The environment variable that names a test run to its processes."""
CLOSED = -100
"""Start the command with this descriptor closed, as `>&-` of a shell does."""
_LATE = (
    *("coverage", "encodings.ascii", "encodings.idna", "google_crc32c", "platform", "platformdirs.unix"),
    *("requests", "sqlite3", "ssl", "tempfile", "traceback", "typer._click.decorators", "websocket"),
)
"""What is imported in functions; `coverage` is started in each command where this process is measured."""
_UNUSED = ("pytest_plugin", "testing")
_MEASURED = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")


class Forked:
    """A forked command, with the part of `subprocess.Popen[str]` that tests use."""

    stdin = None

    def __init__(self, status: socket.socket, stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self._status, self._one_reads = status, threading.Lock()
        self.stdout, self.stderr = stdout, stderr
        self.pid = int(status.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while the command is running."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once the command has ended; raise TimeoutExpired after `timeout` seconds."""
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("uploader", timeout or 0)
        with self._one_reads:  # several threads may wait: at the end of the status they all continue
            if self.returncode is None:
                self.returncode = int(self._status.recv(32))
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both outputs to their end and wait; raise TimeoutExpired after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        said: dict[str, str] = {}
        readers = [
            threading.Thread(target=lambda name=name, pipe=pipe: said.update({name: pipe.read()}), daemon=True)
            for name, pipe in (("stdout", self.stdout), ("stderr", self.stderr))
            if pipe is not None and not pipe.closed
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(None if end is None else max(0.0, end - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired("uploader", timeout or 0)
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        for pipe in filter(None, (self.stdout, self.stderr)):
            pipe.close()
        return said.get("stdout", ""), said.get("stderr", "")

    def send_signal(self, number: int) -> None:
        """Send a signal unless the command has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended, and its status has not arrived yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the command (SIGKILL)."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in filter(None, (self.stdout, self.stderr)):
            pipe.close()
        self.wait()


def start(
    package: str,
    arguments: Sequence[str | Path],
    *,
    cwd: Path | None,
    env: Mapping[str, str],
    stdin: int | IO[Any] = DEVNULL,
    stdout: int | IO[Any] = PIPE,
    stderr: int | IO[Any] = PIPE,
    fresh: bool = False,
    free: bool = True,
    new_session: bool = False,
    on_terminal: bool = False,
    constants: Mapping[str, float] | None = None,
    imported: tuple[str, ...] = (),
) -> Forked | subprocess.Popen[str]:
    """Start `python -m PACKAGE ARGUMENTS`; `fresh` starts a new Python, for tests of memory or start-up.

    Each descriptor is PIPE (text, for outputs only), DEVNULL, CLOSED (not with `fresh`), or an open file. Without
    `free` a forked process ends after its exit functions, before Python frees all objects: freeing copies the shared
    memory and takes ten times the CPU time of the fork. `new_session` starts a session, and `on_terminal` one whose
    terminal is that of stderr. `constants` sets constants of modules (`package.module.NAME`) in a forked process, to
    shorten waits. `imported` are modules that most commands don't need, and that this one needs not import itself.
    """
    if fresh or not AVAILABLE:
        line = [sys.executable, "-m", package, *map(str, arguments)]
        how: dict[str, Any] = {"start_new_session": new_session or on_terminal}
        if on_terminal:
            how["preexec_fn"] = _take_terminal
        return subprocess.Popen(line, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, text=True, **how)
    ours: list[IO[str] | None] = []
    theirs: list[int] = []
    for wanted in (stdin, stdout, stderr):
        read = None
        if wanted == PIPE:
            reader, end = os.pipe()
            read = os.fdopen(reader, encoding="utf-8")
        elif wanted in (DEVNULL, CLOSED):
            end = os.open(os.devnull, os.O_RDWR)
        else:
            end = os.dup(wanted if isinstance(wanted, int) else wanted.fileno())
        ours.append(read)
        theirs.append(end)
    status, report = socket.socketpair(type=socket.SOCK_SEQPACKET)
    closed = [number for number, wanted in enumerate((stdin, stdout, stderr)) if wanted == CLOSED]
    request = {
        "argv": list(map(str, arguments)),
        "cwd": str(cwd or os.getcwd()),
        "env": dict(env),
        "closed": closed,
        "free": free,
        "new_session": new_session or on_terminal,
        "on_terminal": on_terminal,
        "constants": constants or {},
    }
    socket.send_fds(_server(package, *imported), [json.dumps(request).encode()], [*theirs, report.fileno()])
    for end in theirs:
        os.close(end)
    report.close()
    return Forked(status, ours[1], ours[2])


def make_program(path: Path) -> None:
    """Make `uploader` as an executable file, for commands that a shell starts."""
    start = [sys.executable, "-m", "uploader_cli"]
    if AVAILABLE:
        address = _server("uploader_cli").getpeername()[1:].decode()
        start = [sys.executable, "-I", "-S", str(Path(__file__).with_name("forked_command.py")), address]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(start)} "$@"\n')
    path.chmod(0o755)


def _take_terminal() -> None:
    """Make the terminal of stderr the one of this session."""
    import fcntl
    import termios

    fcntl.ioctl(2, termios.TIOCSCTTY, 0)


@functools.cache
def _server(package: str, *more: str) -> socket.socket:
    """Return the connection to the process that forks commands of a package, with `more` modules.

    All processes of a test run share it. The first one starts it, and it ends with the last one.
    """
    measured = [name for name in _MEASURED if name in os.environ]
    modules = [package, *more, *(["coverage"] if measured else [])]
    address = "\0" + "-".join([os.environ.setdefault(RUN, uuid.uuid4().hex), *modules])
    while True:
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.connect(address)
        except ConnectionRefusedError:
            ours.close()
        else:
            atexit.register(ours.close)  # before the wait below
            return ours
        env = {name: value for name, value in os.environ.items() if name not in measured} | {"PYTHONUTF8": "1"}
        here = os.path.abspath(__file__)
        # The current directory may be one of a test, which removes it: modules look at it when they are imported.
        process = subprocess.Popen(
            [sys.executable, here, address[1:], *modules],
            stdin=DEVNULL,
            stdout=PIPE,
            env=env,
            cwd=os.path.dirname(here),
        )
        assert process.stdout is not None
        process.stdout.read()  # it listens now, or another one does
        process.stdout.close()
        atexit.register(process.wait)


# --- in the process that forks ----------------------------------------------------------------------------------------


def _main(address: str, package: str, *more: str) -> None:
    code = 1
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(f"\0{address}")
    except OSError:  # another process of the tests was quicker
        return
    listener.listen(128)
    os.dup2(0, 1)  # tells that it listens

    def end() -> None:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)

    atexit.register(end)  # the first one, so that it is called last
    entry = importlib.import_module(f"{package}.__main__")
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if module.name.rpartition(".")[2] not in _UNUSED:
            importlib.import_module(module.name)
    for name in (*_LATE, *more):
        importlib.import_module(name)
    mimetypes.init()
    if package == "uploader_cli":
        _make_parameters()
    if "coverage" in more:
        inspect.stack()  # coverage calls it; it looks at all modules, and remembers what it found
    gc.freeze()
    request = _forks(listener)
    sys.argv = [entry.__file__ or package, *request["argv"]]
    if request["free"]:
        atexit.unregister(end)
    if "coverage" in more:
        _measure()
    code = getattr(entry, "run", entry.main)()
    sys.exit(code)


def _measure() -> None:
    """Measure this command, except which files are never executed: to find them takes longer than most commands."""
    measured = importlib.import_module("coverage").process_startup()
    if measured is not None:
        measured._inorout.source_pkgs = []  # noqa: SLF001 - no option has this effect alone


def _make_parameters() -> None:
    """Make the parameters of all commands, which the program does for the command that it runs."""
    commands = importlib.import_module("typer.main").get_command(importlib.import_module("uploader_cli.cli.app").app)
    list(commands.commands.values())


def _forks(listener: socket.socket) -> dict[str, Any]:
    """Fork a command for each request until the tests have ended; return the request in the command."""
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, whose end ends this process
    signal.set_wakeup_fd(waker.fileno())
    tests = set[socket.socket]()
    while not tests:
        tests |= _accepted(listener)
    running: dict[int, socket.socket] = {}
    while tests:
        for ready in select.select([woken, listener, *tests], [], [])[0]:
            if ready is woken:
                woken.recv(1 << 12)
                _report(running)
                continue
            if ready is listener:
                tests |= _accepted(listener)
                continue
            message, descriptors, _, _ = socket.recv_fds(ready, 1 << 18, 4)
            if not message:
                tests.remove(ready)
                ready.close()
                continue
            status = socket.socket(fileno=descriptors.pop())
            pid = os.fork()
            if pid:
                running[pid] = status
                status.send(b"%d\n" % pid)
                for each in descriptors:
                    os.close(each)
                continue
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for one in (listener, woken, waker, status, *tests, *running.values()):
                one.close()
            request = json.loads(message)
            _take_over(request, descriptors)
            return request
    os._exit(0)


def _accepted(listener: socket.socket) -> set[socket.socket]:
    """Return the next connection, if it is of this user: everyone sees the address, which has no permissions."""
    connection = listener.accept()[0]
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user == os.geteuid():
        return {connection}
    connection.close()
    return set()


def _report(running: dict[int, socket.socket]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with running.pop(pid) as report, contextlib.suppress(OSError):  # no test waits for it any more
                report.send(b"%d\n" % os.waitstatus_to_exitcode(status))


def _take_over(request: dict[str, Any], descriptors: list[int]) -> None:
    """Set descriptors, environment, directory and constants of the command."""
    for number, descriptor in enumerate(descriptors):
        if number in request["closed"]:
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)  # as Python does at its start
        else:
            os.dup2(descriptor, number)
        os.close(descriptor)
    if request["new_session"]:
        os.setsid()
    if request["on_terminal"]:
        _take_terminal()
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for path, value in request["constants"].items():
        module, _, name = path.rpartition(".")
        assert name in vars(sys.modules[module]), f"there is no {path}"
        setattr(sys.modules[module], name, value)


if __name__ == "__main__":
    _main(*sys.argv[1:])
