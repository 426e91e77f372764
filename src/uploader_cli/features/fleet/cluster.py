"""The Dask cluster of an import: processes of this machine, or a scheduler elsewhere."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future as Promise
from concurrent.futures import InvalidStateError
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from uploader_cli import errors, extras
from uploader_cli.core.plan import LocalFile
from uploader_cli.feature import part_options, used
from uploader_cli.features.fleet import FEATURE, worker
from uploader_cli.features.fleet.tasks import IN_PROGRESS, MOST_FILES
from uploader_cli.private_files import check_directory
from uploader_cli.settings import OPTIONS, Settings, storable
from uploader_cli.transfer.pacer import Stop

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

T = TypeVar("T")
News = Callable[[tuple[str, int, bytes]], None]

LOOK_EVERY = 1.0  # seconds between two requests for the list of workers
OF_LOCAL = {  # configuration of Dask on `local:N`; a cluster has its own
    "distributed.scheduler.allowed-failures": 20,
    # A killed worker that has not started again by then is given up for the rest of the run; a loaded machine takes
    # longer than Dask's 15 s.
    "distributed.deploy.lost-worker-timeout": "5m",
    # What only a dashboard shows took 4 % of the CPU time of each worker.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    # The number of messages of tasks that the scheduler keeps: each has the ends of hundreds of files.
    "distributed.admin.low-level-log-length": 20,
    # Dask's value makes glibc return each block that is read to the system: twice the system time of a worker.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}
SPEAKS_WITHIN = 2.0  # seconds until the first byte of a scheduler
CLOSE_SECONDS = 5.0
TICK = 0.1  # seconds between two checks for a stop while Dask is waited for
RUNNING = ("pending", "lost")  # states of a future; lost: the worker died with the result


class Listed(NamedTuple):
    """A worker in the list of the scheduler; `heartbeat` is by the clock of the scheduler."""

    name: str
    threads: int
    heartbeat: float


def check(settings: Settings, given: LocalFile | None) -> None:
    """Raise `UsageError` for an import that can't work, before anything is started. `given` is no file of a disk."""
    extras.need(FEATURE.extra, ("distributed", "cryptography"), "--on", "Dask")
    if settings.protocol == "batch":
        hint = "a task that runs again could not find its uploads: use `uploader upload` on each machine"
        raise errors.UsageError("--protocol batch and --on exclude each other", hint=hint)
    if settings.if_exists != "rename":
        hint = "an import can't tell a file that a lost worker has stored from another one: use `uploader upload`"
        raise errors.UsageError("--if-exists fail and --on exclude each other", hint=hint)
    if given is not None:
        hint = "write it to a file that all workers see"
        raise errors.UsageError(f"{given.path} can't be imported with --on: only one process can read it", hint=hint)
    for feature in used(settings):
        if feature.phase:
            flag = OPTIONS[feature.options[0].name].flag
            raise errors.UsageError(f"{flag} and --on exclude each other", hint="use `uploader upload`")
    if settings.header and not _is_local(settings):
        hint = "set UPLOADER_HEADER in the environment of the workers, and omit it here"
        raise errors.UsageError("--header is not sent to the workers of a cluster", hint=hint)


def most_open(settings: Settings) -> int:
    """Return how many files may be open: on this machine two tasks of each worker."""
    if not _is_local(settings):
        return IN_PROGRESS
    return min(IN_PROGRESS, 2 * MOST_FILES * _workers_here(settings))


def travelling(settings: Settings) -> dict[str, object]:
    """Return the options of `settings` for the tasks. No secret travels: workers have their own environment."""
    options: dict[str, object] = {**storable(settings), **dict.fromkeys(part_options(), "none"), "on": "none"}
    options |= {"digest": settings.hashes, "insecure": settings.insecure}
    names = ("token_file", "token_command", "ca_bundle", "client_cert", "proxy")
    named = {name: str(getattr(settings, name) or "") for name in names}
    if "@" in named["proxy"]:  # a password
        del named["proxy"]
    return options | {name: value for name, value in named.items() if value}


class Cluster:
    """Calls to the cluster. None waits longer than `--cluster-timeout`, nor for a run that is stopped."""

    def __init__(self, client: Client, run: str, settings: Settings, stop: Stop) -> None:
        import dask

        self._client, self._run, self._settings, self._stop = client, run, settings, stop
        self.allowed_losses: int = dask.config.get("distributed.scheduler.allowed-failures")
        self.dashboard = ""  # its URL, once it is known
        self._listed: Mapping[str, Listed] = {}
        self._answered = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="uploader-workers", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def listed(self, wait: float = 0.0) -> Mapping[str, Listed]:
        """Return the workers by their addresses, after at most `wait` seconds until there is one.

        Raise `NetworkError` for a scheduler that no longer answers.
        """
        end = time.monotonic() + wait
        while not self._listed and time.monotonic() < end:
            self._stop.sleep(TICK)
        silent = time.monotonic() - self._answered
        if silent > self._settings.cluster_timeout:
            raise errors.NetworkError(
                f"the Dask scheduler at {self._settings.on} has not answered for {silent:.0f} s (--cluster-timeout)",
                hint="look at the scheduler, and run the same command again",
            )
        return self._listed

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...], address: str, key: str) -> Future[Any]:
        """Call a function in a thread of one worker."""
        return self._client.submit(function, *arguments, key=key, workers=[address], allow_other_workers=False)

    def result(self, future: Future[T]) -> T:
        """Return the result of a future that is over, or raise its error. Raise `TimeoutError` if its worker died."""
        if future.status == "cancelled":
            hint = "run the same command again"
            raise errors.NetworkError("the Dask scheduler is gone, or cancelled the tasks", hint=hint)
        seconds = self._settings.cluster_timeout
        return awaited(lambda: future.result(timeout=seconds), seconds, self._stop)

    def pause(self, seconds: float) -> None:
        self._tell(worker.pause, self._run, seconds)

    def stop(self, address: str | None = None) -> None:
        """Stop the tasks at their next resumable point: those that one worker has now, or all and later ones."""
        self._tell(worker.stop, self._run, address is None, workers=None if address is None else [address])

    def _tell(self, function: Callable[..., None], *arguments: object, **where: Any) -> None:
        """Call a function on workers, in a thread: one may hang."""

        def call() -> None:
            with suppress(Exception):
                self._client.run(function, *arguments, on_error="ignore", **where)

        threading.Thread(target=call, name="uploader-cluster", daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_EVERY if self._listed else TICK):
            with suppress(Exception):  # `listed` reports it
                # `scheduler_info` may return what a timer of the client got meanwhile: no workers, or five of them.
                scheduler: Any = self._client.scheduler
                known = self._client.sync(scheduler.identity)
                self.dashboard = self.dashboard or self._client.dashboard_link or ""
                self._listed = {
                    address: Listed(_shown(address, one), one["nthreads"], one["last_seen"])
                    for address, one in known["workers"].items()
                    if one["status"] in ("running", "paused")
                }
                self._answered = time.monotonic()


def _shown(address: str, known: Mapping[str, Any]) -> str:
    """Return the name of a worker that has one, or its address."""
    name = str(known["name"])
    return address.partition("://")[2] if name == address else name


def awaited(call: Callable[[], T], seconds: float, stop: Stop, *, undo: Callable[[T], object] | None = None) -> T:
    """Return what `call` returns in another thread, or raise its error; `undo` gets a result that comes too late.

    Raise `TimeoutError` after `seconds`, and `Interrupted` if the run is stopped: Dask's own calls may never return.
    """
    promise: Promise[T] = Promise()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised below
            with suppress(InvalidStateError):
                promise.set_exception(error)
            return
        try:
            promise.set_result(result)
        except InvalidStateError:  # nobody waits for it any more
            if undo is not None:
                undo(result)

    end = time.monotonic() + seconds
    threading.Thread(target=run, name="uploader-dask", daemon=True).start()
    try:
        while True:
            stop.checkpoint()
            with suppress(TimeoutError):
                return promise.result(min(TICK, max(0.0, end - time.monotonic())))
            if promise.done():
                return promise.result()
            if time.monotonic() >= end:
                raise TimeoutError
    except BaseException:
        if not promise.cancel() and undo is not None and promise.exception() is None:  # it came just now
            undo(promise.result())
        raise


@contextmanager
def connected(settings: Settings, run: str, news: News, stop: Stop, at_once: Stop) -> Iterator[Cluster]:
    """Start or reach the cluster of `settings.on`; `news` gets what tasks report. Raise `NetworkError`.

    Its end waits for processes until `at_once` is set.
    """
    import distributed  # noqa: F401 - it takes a second, which is no time of the cluster

    place, seconds = settings.on or "", settings.cluster_timeout
    try:
        closing, client = awaited(lambda: _open(settings, news), seconds, stop, undo=lambda opened: opened[0].close())
    except TimeoutError as error:
        raise _no_scheduler(place, f"it did not answer within {seconds:.0f} s (--cluster-timeout)") from error
    cluster = Cluster(client, run, settings, stop)
    try:
        yield cluster
    finally:
        cluster.close()
        with suppress(TimeoutError, errors.Interrupted):
            awaited(closing.close, 2 * CLOSE_SECONDS, at_once)
        if _is_local(settings):
            _kill_workers()


def _open(settings: Settings, news: News) -> tuple[ExitStack, Client]:
    import dask
    from distributed import Client

    place = settings.on or ""
    with ExitStack() as closing:
        if _is_local(settings):
            scratch = closing.enter_context(_scratch_directory())
            closing.enter_context(dask.config.set({**OF_LOCAL, "temporary-directory": scratch}))
            cluster = _local_cluster(settings)
            # Else Dask closes it once more at the exit of the process, and prints a traceback if that fails.
            cluster.shutdown_on_close = False
            closing.callback(_quietly, lambda: cluster.close(CLOSE_SECONDS))
            address: Any = cluster
        else:
            scheme, _, host = place.partition("://")
            address = f"{'tls' if scheme.endswith('tls') else 'tcp'}://{host}"
            for name in ("distributed", "distributed.client"):  # the second one has a level of its own
                logging.getLogger(name).setLevel(logging.CRITICAL if settings.verbose < 2 else logging.WARNING)
            _look_at(place, host, settings.cluster_timeout)
        try:
            client = Client(address, timeout=settings.cluster_timeout, set_as_default=False)
        except TypeError as error:  # Dask has no certificates
            hint = "set distributed.comm.tls in Dask's configuration, or use dask://"
            raise errors.UsageError(f"--on {place}: {error}", hint=hint) from error
        except (OSError, TimeoutError) as error:
            raise _no_scheduler(place, error) from error
        closing.callback(_quietly, lambda: client.close(CLOSE_SECONDS))
        client.subscribe_topic(worker.TOPIC, lambda event: news(event[1]))
        return closing.pop_all(), client


@contextmanager
def _scratch_directory() -> Iterator[str]:
    """Make a private directory for all files of Dask; its end deletes it. Raise `UsageError` where none can be made.

    Dask would take `dask-scratch-space` in TMPDIR also from another user, and begins `sys.path` of its workers with a
    directory below it. Dask leaves such entries in `sys.path` of this process: they end with the directory.
    """
    import dask

    above = Path(dask.config.get("temporary-directory") or tempfile.gettempdir()).absolute()
    for directory in (above, *above.parents):
        check_directory(directory, "set TMPDIR to a directory that only you may write")
    with tempfile.TemporaryDirectory(prefix="uploader-dask-", dir=above, ignore_cleanup_errors=True) as made:
        try:
            yield made
        finally:
            sys.path[:] = [entry for entry in sys.path if not Path(entry).is_relative_to(made)]


def _local_cluster(settings: Settings) -> LocalCluster:
    from distributed import LocalCluster

    try:
        return LocalCluster(
            n_workers=_workers_here(settings),
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address=None,
            security=True,  # else each user of this machine could run code as this user
            silence_logs=logging.CRITICAL,
            preload=[worker.__name__],
            env=_environment(settings),
        )
    except RuntimeError as error:  # one was killed
        hint = "run the same command again"
        raise errors.NetworkError(f"the workers of this machine could not be started: {error}", hint=hint) from error


def _look_at(place: str, host: str, seconds: float) -> None:
    """Raise what is wrong with an address: Dask's client waits for ever where no scheduler answers it."""
    name, _, port = host.rpartition(":")
    try:
        with socket.create_connection((name.strip("[]"), int(port)), seconds) as connection:
            if place.startswith("dask+tls"):  # no byte before the handshake
                return
            connection.settimeout(min(SPEAKS_WITHIN, seconds))
            with suppress(TimeoutError):
                if connection.recv(1):  # a scheduler speaks first
                    return
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            connection.settimeout(seconds)
            speaks = connection.recv(5) == b"HTTP/"
    except TimeoutError:
        raise
    except (OSError, OverflowError) as error:
        raise _no_scheduler(place, error) from error
    if not speaks:
        raise _no_scheduler(place, "it closed the connection")
    hint = "give the address that `dask scheduler` prints, by default with the port 8786"
    raise errors.UsageError(f"--on {place}: that is a web server, and no Dask scheduler", hint=hint)


def _no_scheduler(place: str, why: object) -> errors.ConnectFailed:
    hint = "check that the scheduler runs, and its address"
    return errors.ConnectFailed(f"no Dask scheduler answers at {place}: {why}", hint=hint)


def _is_local(settings: Settings) -> bool:
    return (settings.on or "").startswith("local:")


def _workers_here(settings: Settings) -> int:
    return int((settings.on or "").partition(":")[2])


def _environment(settings: Settings) -> dict[str, str]:
    """Return the variables with the secrets of `settings`, for processes of this machine."""
    own = {"UPLOADER_TOKEN": settings.token or "", "UPLOADER_PROXY": settings.proxy or ""}
    own["UPLOADER_HEADER"] = "\n".join(f"{name}: {value}" for name, value in settings.headers.items())
    return {**os.environ, **{name: value for name, value in own.items() if value}}


def _quietly(close: Callable[[], object]) -> None:
    with suppress(Exception):
        close()


def _kill_workers() -> None:
    """Kill the workers of this machine that have not ended: one may be stopped."""
    for process in multiprocessing.active_children():
        if process.name.startswith("Dask Worker process"):
            process.kill()
