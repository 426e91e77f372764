"""The Dask cluster of an import: processes of this machine, or a scheduler elsewhere."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from uploader_cli import errors, extras
from uploader_cli.core.plan import LocalFile
from uploader_cli.fleet import worker
from uploader_cli.fleet.tasks import TaskInput
from uploader_cli.settings import Settings, storable

if TYPE_CHECKING:
    from distributed import Client, Future

News = Callable[[tuple[str, int, bytes]], None]

LOOK_EVERY = 1.0  # seconds between two looks at the workers
OF_LOCAL = {  # configuration of Dask on `local:N`; a cluster has its own
    "distributed.scheduler.allowed-failures": 20,
    "distributed.scheduler.worker-saturation": 1.0,  # a task waits for the first free worker, not at a busy one
    # What only a dashboard shows took 4 % of the CPU time of each worker.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    # Dask's value makes glibc return each block that is read to the system: twice the system time of a worker.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}
CONNECT_SECONDS = 10.0
SPEAKS_WITHIN = 2.0  # seconds until the first byte of a scheduler
CLOSE_SECONDS = 5.0


def check(settings: Settings, given: LocalFile | None) -> None:
    """Raise `UsageError` for an import that can't work, before anything is started. `given` is no file of a disk."""
    extras.need("dask", "--on", "Dask")
    if settings.foreign or settings.protocol == "batch":
        what = "--tus-endpoint" if settings.foreign else "--protocol batch"
        hint = "a task that runs again could not find its uploads: use `uploader upload`, with --shard on each machine"
        raise errors.UsageError(f"{what} and --on exclude each other", hint=hint)
    if settings.if_exists != "rename":
        hint = "an import can't tell a file that a lost worker has stored from another one: use `uploader upload`"
        raise errors.UsageError("--if-exists fail and --on exclude each other", hint=hint)
    if given is not None:
        hint = "write it to a file that all workers see"
        raise errors.UsageError(f"{given.path} can't be imported with --on: only one process can read it", hint=hint)
    if settings.analyze != "none":
        raise errors.UsageError("--analyze and --on exclude each other", hint="use `uploader upload`")
    if settings.header and not _is_local(settings):
        hint = "set UPLOADER_HEADER in the environment of the workers, and omit it here"
        raise errors.UsageError("--header is not sent to the workers of a cluster", hint=hint)


def travelling(settings: Settings) -> dict[str, object]:
    """Return the options of `settings` for the tasks. No secret travels: workers have their own environment."""
    options: dict[str, object] = {**storable(settings), "shard": "none", "on": "none"}
    options |= {"digest": settings.hashes, "insecure": settings.insecure}
    named = {name: getattr(settings, name) for name in ("token_file", "token_command")}
    return options | {name: str(value) for name, value in named.items() if value}


class Cluster:
    def __init__(self, client: Client, run: str) -> None:
        self._client, self._run = client, run
        self._threads: dict[str, int] = {}
        self._looked = 0.0

    def slots(self) -> int:
        """Return how many tasks run at once; `workers` is current after it."""
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            with suppress(OSError, TimeoutError):  # the scheduler is gone: futures say so
                self._threads = dict(self._client.nthreads())
        return sum(self._threads.values())

    @property
    def workers(self) -> int:
        """The number of worker processes."""
        return len(self._threads)

    def submit(self, task: TaskInput) -> Future[Any]:
        name = worker.began_name(task.run, task.number)
        return self._client.submit(worker.send, task, key=name, pure=False)

    def forget(self, number: int) -> None:
        """Forget that a task began: it has ended."""
        from distributed import Event

        with suppress(OSError, TimeoutError):
            Event(worker.began_name(self._run, number), client=self._client).clear()

    def pause(self, seconds: float) -> None:
        self._on_all(worker.pause, self._run, seconds)

    def stop(self) -> None:
        """Stop all tasks at their next resumable point."""
        self._on_all(worker.stop, self._run)

    def _on_all(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function on all workers, in a thread: a worker may hang."""

        def call() -> None:
            with suppress(Exception):
                self._client.run(function, *arguments, on_error="ignore")

        threading.Thread(target=call, name="uploader-cluster", daemon=True).start()


@contextmanager
def connected(settings: Settings, run: str, news: News) -> Iterator[Cluster]:
    """Start or reach the cluster of `settings.on`; `news` gets what tasks report. Raise `ConnectFailed`."""
    import dask
    from distributed import Client, LocalCluster

    place = settings.on or ""
    loggers = logging.ERROR if settings.verbose < 2 else logging.WARNING
    with ExitStack() as closing:
        if _is_local(settings):
            closing.enter_context(dask.config.set(OF_LOCAL))
            cluster = LocalCluster(
                n_workers=int(place.partition(":")[2]),
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address=None,
                security=True,  # else each user of this machine could run code as this user
                silence_logs=logging.CRITICAL,
                preload=[worker.__name__],
                env=_environment(settings),
            )
            closing.callback(_quietly, lambda: cluster.close(CLOSE_SECONDS))
            address: Any = cluster
        else:
            scheme, _, host = place.partition("://")
            address = f"{'tls' if scheme.endswith('tls') else 'tcp'}://{host}"
            logging.getLogger("distributed").setLevel(loggers)
            _look_at(place, host)
        try:
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except TypeError as error:  # Dask has no certificates
            hint = "set distributed.comm.tls in Dask's configuration, or use dask://"
            raise errors.UsageError(f"--on {place}: {error}", hint=hint) from error
        except (OSError, TimeoutError) as error:
            raise _no_scheduler(place, error) from error
        closing.callback(_quietly, lambda: client.close(CLOSE_SECONDS))
        client.subscribe_topic(worker.TOPIC, lambda event: news(event[1]))
        yield Cluster(client, run)


def _look_at(place: str, host: str) -> None:
    """Raise what is wrong with an address: Dask's client waits for ever where no scheduler answers it."""
    name, _, port = host.rpartition(":")
    try:
        with socket.create_connection((name.strip("[]"), int(port)), CONNECT_SECONDS) as connection:
            if place.startswith("dask+tls"):  # no byte before the handshake
                return
            connection.settimeout(SPEAKS_WITHIN)
            with suppress(TimeoutError):
                if connection.recv(1):  # a scheduler speaks first
                    return
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            connection.settimeout(CONNECT_SECONDS)
            speaks = connection.recv(5) == b"HTTP/"
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


def _environment(settings: Settings) -> dict[str, str]:
    """Return the variables with the secrets of `settings`, for processes of this machine."""
    own = {"UPLOADER_TOKEN": settings.token or "", "UPLOADER_PROXY": settings.proxy or ""}
    own["UPLOADER_HEADER"] = "\n".join(f"{name}: {value}" for name, value in settings.headers.items())
    return {**os.environ, **{name: value for name, value in own.items() if value}}


def _quietly(close: Callable[[], object]) -> None:
    with suppress(Exception):
        close()
