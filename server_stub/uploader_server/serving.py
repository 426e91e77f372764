"""Running the application: `serve` in the main thread of a process, `EmbeddedServer` in a background thread.

It uses granian, which receives uploads faster than uvicorn (benchmarks/asgi_servers.py). The port is bound here, for
clear errors and port 0. A stop ends running requests and closes connections within two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server

from uploader_server.app import UploadApp, create_app
from uploader_server.config import ServerConfig
from uploader_server.http.connections import SPARE, Watch, cut_connections, most_connections, raise_limit
from uploader_server.options import StartupError
from uploader_server.storage.paths import remove_tree
from uploader_server.storage.turns import LONG_JOBS

if TYPE_CHECKING:
    from uploader_server.simulation.state import Faults, Restart

logger = logging.getLogger(__name__)

START_DEADLINE = 30.0
STOP_GRACE = 0.3
STOP_DEADLINE = 1.5
IO_DEADLINE = 0.5
"""Seconds that `serve` waits for reads and writes of the disk; the next start repairs what it ends (storage/put.py)."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
SHORT_JOBS = 8  # threads that are left while all long jobs run (see `storage.turns`)
IO_THREADS = "uploader-server-io"  # prefix of the names of the threads that read and write files
BACKLOG = 1024
LARGEST_PIECE = 1 << 20
"""Maximum bytes per body message from granian; its default of 400 KiB needs 25 % more CPU for large uploads."""
KEEP_ALIVE = {"bundled": 75.0, "reference": 5.0}
"""Seconds from a response to the end of the next request head (docs/protocol.md, section 3.16).

granian has one timer for idle connections and slow heads.
"""


class Granian(Server):
    def __init__(self, app: UploadApp, listener: socket.socket, keep_alive: float) -> None:
        self._listener = listener
        super().__init__(
            app,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=int(keep_alive * 1000), max_buffer_size=LARGEST_PIECE),
            backlog=BACKLOG,
            backpressure=most_connections() + SPARE,
            log_enabled=False,
        )

    def _init_shared_socket(self) -> None:
        is_unix_socket = False
        # this constructor is missing in granian's annotations
        self._shd = SocketHolder(self._listener.detach(), is_unix_socket, BACKLOG)  # type: ignore[assignment,call-arg]


def listen(config: ServerConfig) -> socket.socket:
    """Bind the address. Raises StartupError with the option and the fix."""
    where = f"{config.host}:{config.port}"
    hint = "use 127.0.0.1 for this machine only, or :: for all addresses"
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        both = config.host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server((config.host, config.port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
        # Inherited by accepted connections; avoids delays of 40 ms by Nagle's algorithm and delayed ACKs.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OverflowError as error:
        raise StartupError(f"--port {config.port}: no port", "a port is a number from 0 to 65535") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "stop the program that is listening there, or choose another port (--port 0 selects a free one)"
            raise StartupError(f"--port {config.port}: {where} is in use", hint) from error
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise StartupError(f"--port {config.port}: permission denied", "choose a port above 1023") from error
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else "the name is unknown"  # a negative one is of the resolver
        raise StartupError(f"--host {config.host}: can't listen there ({why})", hint) from error


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Runner:
    """Runs an application, and restarts it on the same address when a fault requests it."""

    def __init__(self, config: ServerConfig, *, scripted: bool) -> None:
        """Bind the address and build the application. Raises StartupError."""
        self._listener = listen(config)
        try:
            self.app = create_app(config, scripted=scripted)  # the running or last application
        except StartupError:
            self._listener.close()
            raise
        self.port: int = self._listener.getsockname()[1]
        self.url = url_of(self._listener)
        self._scripted = scripted
        self._kept_roots: list[Path] = []  # temporary roots of earlier applications, removed by `close`

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Serve until `stop` is set. `ready` is called once."""
        while (restart := await self._serve(stop, ready)) is not None:
            await self._restart(restart, stop)
            ready = lambda: None  # noqa: E731

    async def _serve(self, stop: asyncio.Event, ready: Callable[[], None]) -> Restart | None:
        """Serve until `stop` is set or a restart is requested, then stop within STOP_DEADLINE seconds."""
        app = self.app
        requested: asyncio.Future[Restart] = asyncio.get_running_loop().create_future()

        def on_restart(restart: Restart) -> None:
            if not requested.done():
                app.crash()  # requests get no response from now on
                cut_connections(self.port)
                app.stop()
                requested.set_result(restart)

        if app.state.faults is not None:
            app.state.faults.on_restart = on_restart
        server = Granian(app, self._listener, KEEP_ALIVE[app.state.config.flavour])
        serving = asyncio.ensure_future(server.serve())
        started = asyncio.ensure_future(app.started.wait())
        stopping = asyncio.ensure_future(stop.wait())
        watching: asyncio.Future[None] | None = None
        ends: set[asyncio.Future[Any]] = {serving, stopping, requested}
        try:
            await asyncio.wait({started, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                ready()
                watching = asyncio.ensure_future(Watch(self.port, app.tracker, app.state.memory).run())
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (started, stopping, watching):
                if task is not None:
                    task.cancel()
            app.stop()
            server.stop()  # type: ignore[no-untyped-call]
            await asyncio.wait({serving}, timeout=STOP_GRACE)
            if not serving.done():  # granian waits for slow requests and incomplete heads
                cut_connections(self.port)
                await asyncio.wait({serving}, timeout=STOP_DEADLINE - STOP_GRACE)
            serving.cancel()
            await app.tracker.ended(STOP_GRACE)  # wait for the cleanup of requests
        if serving.done() and not serving.cancelled():
            serving.result()
        return requested.result() if requested.done() and not stop.is_set() else None

    async def _restart(self, restart: Restart, stop: asyncio.Event) -> None:
        config, faults, root = self.app.state.config, self.app.state.faults, self.app.state.store.root
        await self.app.tracker.ended(STOP_DEADLINE)  # else they could write to the root of the next application
        if restart.memory == "nothing":
            self.app.close()
            config = replace(config, root=None)
        else:
            if config.root is None:
                self._kept_roots.append(root)
            self.app.close(keep_root=True)
            if restart.memory == "files":
                shutil.rmtree(self.app.state.store.private)
            config = replace(config, root=root, analyses=config.has_analyses)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), restart.down)
        self._listener = listen(replace(config, port=self.port))
        self.app = create_app(config, faults=faults, scripted=self._scripted)

    def close(self) -> None:
        """Release the root after `run` has ended, and remove temporary ones."""
        self.app.close()
        for root in self._kept_roots:
            remove_tree(root)


def run_loop(main: Coroutine[Any, Any, None], *, io_deadline: float | None = None) -> None:
    """Run `main` like `asyncio.run`, without waiting for tasks that don't end when they are cancelled.

    granian 2.8 sometimes loses the wake-up of a task that is cancelled while its connection ends; asyncio.run would
    wait for it forever. Threads that still read or write files are waited for, for at most `io_deadline` seconds.
    """
    loop = asyncio.new_event_loop()
    threads = ThreadPoolExecutor(SHORT_JOBS + LONG_JOBS, thread_name_prefix=IO_THREADS)
    loop.set_default_executor(threads)
    try:
        loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=STOP_GRACE))
        loop.set_exception_handler(lambda *_: None)  # don't report pending tasks
        loop.run_until_complete(loop.shutdown_asyncgens())
        threads.shutdown(wait=io_deadline is None)
        if io_deadline is not None:
            end = time.monotonic() + io_deadline
            for thread in _io_threads():
                thread.join(max(0.0, end - time.monotonic()))
        loop.close()


def _io_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(IO_THREADS)]


def serve(config: ServerConfig, on_ready: Callable[[str, Path], None]) -> None:
    """Serve in the main thread until a signal; call `on_ready(url, root)` when ready. Raises StartupError.

    If a system call of the disk doesn't end in time, the process exits here with code 0.
    """
    raise_limit()
    with Signals() as signals:
        _serve(config, on_ready, signals)


def _serve(config: ServerConfig, on_ready: Callable[[str, Path], None], signals: Signals) -> None:
    runner = Runner(replace(config, remembered_requests=0), scripted=False)  # only tests use them
    gc.freeze()  # what was made until now stays: each look of the collector at it costs 0.8 µs for a file of a pack
    try:
        ready = lambda: on_ready(runner.url, runner.app.state.store.root)  # noqa: E731
        run_loop(_until_signal(runner, ready, signals), io_deadline=IO_DEADLINE)
    except BaseException:
        runner.close()
        raise
    closing = threading.Thread(target=runner.close, name=f"{IO_THREADS}-close", daemon=True)
    closing.start()
    closing.join(IO_DEADLINE)
    if _io_threads():
        _leave()


class Signals:
    """Waits in a thread for SIGTERM or SIGINT. A loop that does not answer to it in time is blocked by the disk.

    Some calls of the disk are made on the event loop, since a thread would take longer than they do; with this a disk
    that hangs can't keep the process. Other threads must begin within the `with` block, so that they get no signal.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._seen = threading.Event()  # whether the loop has seen the signal
        self._on_signal: Callable[[], object] = self._seen.set

    def __enter__(self) -> Signals:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._thread = threading.Thread(target=self._wait, name="uploader-signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            signal.pthread_kill(self._thread.ident or 0, signal.SIGTERM)  # ends its wait
            self._thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def stops(self, stop: asyncio.Event) -> None:
        """Set an event of the running loop at a signal."""
        loop = asyncio.get_running_loop()

        def seen() -> None:
            self._seen.set()
            stop.set()

        self._on_signal = lambda: loop.call_soon_threadsafe(seen)
        if self._seen.is_set():
            stop.set()

    def _wait(self) -> None:
        signal.sigwait(SIGNALS)
        if self._ended.is_set():
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._on_signal()
        if not self._seen.wait(STOP_DEADLINE) and not self._ended.is_set():
            _leave()


def _leave() -> NoReturn:
    """End the process, though a call of the disk has not ended."""
    logger.error("the disk did not answer: reads and writes were ended")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _until_signal(runner: Runner, ready: Callable[[], None], signals: Signals) -> None:
    stop = asyncio.Event()
    signals.stops(stop)
    await runner.run(stop, ready)


class EmbeddedServer:
    """The server in a background thread, for `uploader demo` and tests; a context manager.

    It uses `port` (default: a free one) instead of the port of `config`. After `stop` no thread, socket or temporary
    directory is left.
    """

    def __init__(self, config: ServerConfig | None = None, *, port: int = 0) -> None:
        self.config = replace(config or ServerConfig(), port=port)
        self.url = ""
        self._runner: Runner | None = None
        self._thread: threading.Thread | None = None
        self._end: Future[Callable[[], object]] = Future()  # function that ends the server, once it is ready

    @property
    def app(self) -> UploadApp:
        """The running application. Raises RuntimeError before the start."""
        if self._runner is None:
            raise RuntimeError("the embedded server is not started")
        return self._runner.app

    @property
    def root(self) -> Path:
        return self.app.state.store.root

    @property
    def faults(self) -> Faults:
        """The active faults, which can be changed at run time."""
        faults = self.app.state.faults
        assert faults is not None  # noqa: S101 - its application is scripted
        return faults

    def start(self) -> None:
        """Start the server and wait until it is ready. Raises StartupError."""
        self._runner = Runner(self.config, scripted=True)
        self.url = self._runner.url
        self._thread = threading.Thread(target=self._run, args=(self._runner,), name="uploader-server", daemon=True)
        self._thread.start()
        try:
            self._end.result(START_DEADLINE)
        except Exception as error:
            self.stop()
            raise StartupError(f"the embedded server did not start within {START_DEADLINE:.0f} s") from error

    def stop(self) -> None:
        """Stop within two seconds, closing all connections. May be called twice."""
        if self._thread is None or self._runner is None:
            return
        if self._end.done() and self._end.exception() is None and self._thread.is_alive():
            self._end.result()()
        self._thread.join(START_DEADLINE)
        self._thread = None
        self._runner.close()

    def _run(self, runner: Runner) -> None:
        async def main() -> None:
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            await runner.run(stop, lambda: self._end.set_result(lambda: loop.call_soon_threadsafe(stop.set)))

        failure: BaseException = RuntimeError("it has ended")
        try:
            run_loop(main())
        except BaseException as error:  # noqa: BLE001 - raised by `start`
            failure = error
        if not self._end.done():
            self._end.set_exception(failure)

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
