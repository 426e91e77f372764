"""Running the application: `serve` for a process of its own, `EmbeddedServer` for a thread of this one.

granian takes uploads several times as fast as uvicorn (benchmarks/asgi_servers.py). Three things are added to it:
the port is bound here, so that a taken one is an error with a name and port 0 has a number; a stop ends requests
under way and cuts what is left, so that it takes less than two seconds whoever is connected; nothing is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import signal
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server

from uploader_server.app import UploadApp, create_app
from uploader_server.config import ServerConfig, StartupError
from uploader_server.http.connections import cut_connections, most_connections, raise_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from types import TracebackType

    from uploader_server.faults import Faults
    from uploader_server.faults.state import Restart

START_DEADLINE = 30.0
STOP_GRACE = 0.3
STOP_DEADLINE = 1.5
BACKLOG = 1024
LARGEST_PIECE = 1 << 20
"""Bytes of a body that granian hands over at once; with its own 400 KiB a large upload costs a quarter more CPU."""
KEEP_ALIVE = {"bundled": 75.0, "reference": 5.0}
"""Seconds from one answer to the end of the next request's head: granian has one timer for idle and for slow clients.

Reference: docs/protocol.md, section 3.16.
"""


class Granian(Server):
    """granian in this process, on a socket that is already bound."""

    def __init__(self, app: UploadApp, listener: socket.socket, keep_alive: float) -> None:
        self._listener = listener
        super().__init__(
            app,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=int(keep_alive * 1000), max_buffer_size=LARGEST_PIECE),
            backlog=BACKLOG,
            backpressure=most_connections(),
            log_enabled=False,
        )

    def _init_shared_socket(self) -> None:
        is_unix_socket = False
        # granian's own annotations leave the constructor out that its pickling uses
        self._shd = SocketHolder(self._listener.detach(), is_unix_socket, BACKLOG)  # type: ignore[assignment,call-arg]


def listen(config: ServerConfig) -> socket.socket:
    """Bind the address. Raises StartupError naming the option and the fix."""
    where = f"{config.host}:{config.port}"
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        listener = socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
        # Accepted connections inherit it: without, the second of two events waits 40 ms for the client's late ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except socket.gaierror as error:
        raise StartupError(f"--host {config.host}: no address of this machine ({error.strerror})") from error
    except OverflowError as error:
        raise StartupError(f"--port {config.port}: a port is a number from 0 to 65535") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = "another program listens there; stop it, or choose another port (--port 0 takes a free one)"
            raise StartupError(f"--port {config.port}: {where} is taken: {fix}") from error
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise StartupError(f"--port {config.port}: not allowed to listen there; choose one above 1023") from error
        raise StartupError(f"--host {config.host}: can't listen on {where} ({error.strerror})") from error


def url_of(listener: socket.socket) -> str:
    """The URL of a bound socket, with its real port."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def run(app: UploadApp, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Serve until `stop` is set; then end everything within STOP_DEADLINE seconds."""
    port = listener.getsockname()[1]
    server = Granian(app, listener, KEEP_ALIVE[app.state.config.flavour])
    serving = asyncio.ensure_future(server.serve())
    started = asyncio.ensure_future(app.started.wait())
    stopping = asyncio.ensure_future(stop.wait())
    watching: asyncio.Future[None] | None = None
    try:
        await asyncio.wait({serving, started, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            ready()
            watching = asyncio.ensure_future(app.watch(port).run())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (started, stopping, watching):
            if task is not None:
                task.cancel()
        app.stop()
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving}, timeout=STOP_GRACE)
        if not serving.done():  # slow requests and half-sent heads would hold granian up for as long as they like
            cut_connections(port)
            await asyncio.wait({serving}, timeout=STOP_DEADLINE - STOP_GRACE)
        serving.cancel()
        await app.ended(STOP_GRACE)  # what requests leave behind is removed
    if serving.done() and not serving.cancelled():
        serving.result()


class Runner:
    """Runs one application after another on one address: the next one after each restart that a fault asks for."""

    def __init__(self, app: UploadApp, listener: socket.socket, *, scripted: bool) -> None:
        self.app = app
        """The one that runs, or ran last."""
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        self._scripted = scripted
        self._kept_roots: list[Path] = []
        """Temporary roots that restarts have kept: they are removed at the end."""

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Serve until `stop` is set. `ready` is called once."""
        while True:
            asked: list[Restart] = []
            ending = asyncio.Event()

            def on_restart(restart: Restart, asked: list[Restart] = asked, ending: asyncio.Event = ending) -> None:
                if not ending.is_set():
                    self.app.crash()  # nobody gets an answer any more
                    cut_connections(self.port)
                    self.app.stop()
                    asked.append(restart)
                    ending.set()

            self.app.state.faults.on_restart = on_restart
            stopping = asyncio.ensure_future(_follow(stop, ending))
            try:
                await run(self.app, self._listener, ending, ready)
            finally:
                stopping.cancel()
            if stop.is_set() or not asked:
                return
            await self._begin_anew(asked[0], stop)
            ready = _nothing

    async def _begin_anew(self, restart: Restart, stop: asyncio.Event) -> None:
        config, faults, root = self.app.state.config, self.app.state.faults, self.app.state.store.root
        await self.app.ended(STOP_DEADLINE)  # else they would write into the root of the next one
        if restart.memory == "nothing":
            self.app.close()
            config = replace(config, root=None)
        else:
            self._keep(root)
            if restart.memory == "files":
                shutil.rmtree(self.app.state.store.private)
            config = replace(config, root=root)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), restart.down)
        self._listener = listen(replace(config, port=self.port))
        self.app = create_app(config, faults=faults, scripted=self._scripted)

    def _keep(self, root: Path) -> None:
        if self.app.state.config.root is None:
            self._kept_roots.append(root)
        self.app.close(keep_root=True)

    def close(self) -> None:
        """Release the root; a temporary one is removed. Only after `run` has ended."""
        self.app.close()
        for root in self._kept_roots:
            shutil.rmtree(root, ignore_errors=True)


async def _follow(stop: asyncio.Event, ending: asyncio.Event) -> None:
    await stop.wait()
    ending.set()


def _nothing() -> None:
    """Do nothing."""


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, but tasks that don't end when they are cancelled are left behind.

    granian loses the wake-up of a task that is cancelled in the moment in which its connection ends (seen with 2.8,
    once in twenty stops with live websockets); asyncio.run would wait for it for ever.
    """
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=STOP_GRACE))
        loop.set_exception_handler(lambda *_: None)  # it would be told of those that are still pending
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def serve(config: ServerConfig, on_ready: Callable[[str, Path], None]) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread. Calls `on_ready(url, root)` once requests are answered.

    Raises StartupError.
    """
    raise_limit()
    listener = listen(config)
    try:
        app = create_app(replace(config, remembered_requests=0), scripted=False)  # no test runs in this process
    except StartupError:
        listener.close()
        raise
    runner = Runner(app, listener, scripted=False)
    url = url_of(listener)
    try:
        run_loop(_until_signal(runner, lambda: on_ready(url, app.state.store.root)))
    finally:
        runner.close()


async def _until_signal(runner: Runner, ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            # A plain handler is not enough: it runs between two steps of Python, and a signal that comes just before
            # the loop goes to sleep would be heard at its next timer, up to a minute later.
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows, where the loop looks for signals by itself
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    await runner.run(stop, ready)


class EmbeddedServer:
    """The server in a thread of this process, for `uploader demo` and for tests; a context manager.

    The port of `config` is used as it is when given to `EmbeddedServer(config, port=…)`; by default a free one is
    taken. After `stop()` no thread, socket or temporary directory is left.
    """

    def __init__(self, config: ServerConfig | None = None, *, port: int = 0) -> None:
        self.config = replace(config or ServerConfig(), port=port)
        self.url = ""
        self._runner: Runner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @property
    def app(self) -> UploadApp:
        """The running application. Raises RuntimeError before the start."""
        if self._runner is None:
            raise RuntimeError("the embedded server was not started")
        return self._runner.app

    @property
    def root(self) -> Path:
        """Where the files are kept."""
        return self.app.state.store.root

    @property
    def faults(self) -> Faults:
        """What is broken, to be changed at run time."""
        return self.app.state.faults

    def start(self) -> None:
        """Start, and return when requests are answered. Raises StartupError."""
        listener = listen(self.config)
        try:
            self._runner = Runner(create_app(self.config), listener, scripted=True)
        except StartupError:
            listener.close()
            raise
        self.url = url_of(listener)
        self._thread = threading.Thread(target=self._run, args=(self._runner,), name="uploader-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_DEADLINE) or self._failure is not None:
            failure = self._failure
            self.stop()
            raise StartupError(f"the embedded server did not start within {START_DEADLINE:.0f} s") from failure

    def stop(self) -> None:
        """Stop, within two seconds whoever is connected. May be called twice."""
        if self._thread is None:
            return
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_DEADLINE)
        self._thread = None
        if self._runner is not None:
            self._runner.close()

    def _run(self, runner: Runner) -> None:
        try:
            run_loop(self._main(runner))
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for the start
            self._failure = error
        finally:
            self._ready.set()

    async def _main(self, runner: Runner) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await runner.run(self._stop, self._ready.set)

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
