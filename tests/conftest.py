"""Fixtures for all tests."""

from __future__ import annotations

import atexit
import contextlib
import gc
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import forking
import pytest
from hypothesis import HealthCheck, settings, strategies
from serving import running_server

from uploader_cli.features import FEATURES
from uploader_server.features import FEATURES as OF_SERVER

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from uploader_server.serving import EmbeddedServer

# "quick" tries the same few examples in every run; "nightly" explores. A slow machine must not fail a test.
_ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", _ANY_SPEED, max_examples=30, derandomize=True)
settings.register_profile("nightly", _ANY_SPEED, max_examples=5000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


# With cached bytecode a start of the program needs a third less CPU time, and pytest compiles a test module once.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


# The process that started the tests may ignore these signals (`nohup`, a background job); children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _directory_in_memory() -> Path | None:
    """Make a directory for all temporary files, unless TMPDIR is set or there is little memory.

    On a disk the tests take a tenth more CPU time.
    """
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not memory.is_dir():
        return None
    state = os.statvfs(memory)
    if state.f_bavail * state.f_frsize < 4 << 30 or state.f_flag & os.ST_NOEXEC:
        return None
    return Path(tempfile.mkdtemp(prefix="tests-", dir=memory))


_IN_MEMORY = _directory_in_memory()
if _IN_MEMORY:
    os.environ["TMPDIR"], tempfile.tempdir = str(_IN_MEMORY), None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what collection makes, which lives to the end, away from all garbage collections."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests with a feature that is not there."""
    known = {*FEATURES, *(f"server/{name}" for name in OF_SERVER)}
    others = [item for item in items if not {mark.args[0] for mark in item.iter_markers("feature")} <= known]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def pytest_xdist_auto_num_workers() -> int | None:
    """Return the number of processes of `-n auto`: five for each CPU, from 4 to 16.

    Many tests wait for sockets and processes: with three for each of two CPUs the run took 178 s, with five 144 s. Each
    process repeats 3 s of CPU time, to import and to collect the tests. The environment variable of xdist,
    PYTEST_XDIST_AUTO_NUM_WORKERS, has priority.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(5 * cpus, 4), 16)


@pytest.hookimpl(trylast=True)  # hypothesis is ready then; xdist starts its processes after this
def pytest_sessionstart(session: pytest.Session) -> None:
    """Do once what in a fresh clone each worker would do: compile the test modules, find the characters of UTF-8."""
    config = session.config
    os.environ.setdefault(forking.RUN, uuid.uuid4().hex)
    workers = 0 if hasattr(config, "workerinput") else config.getoption("numprocesses", None) or 0
    if workers < 2 or config.args_source is not config.ArgsSource.TESTPATHS:
        return
    collected = (
        path for path in Path(__file__).parent.rglob("test_*.py") if not pytest_ignore_collect(path.parent, config)
    )
    modules = [path for path in sorted(collected) if not is_compiled(path)]
    if len(modules) < 50:
        return
    collect = [sys.executable, "-m", "pytest", "-n", "0", "--no-cov", "--collect-only", "-p", "no:cacheprovider"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # not measured
    halves = [
        subprocess.Popen([*collect, *modules[half::2]], cwd=config.rootpath, env=env, stdout=subprocess.DEVNULL)
        for half in range(2)
    ]
    strategies.text().validate()
    for process in halves:
        process.wait()


@pytest.hookimpl(wrapper=True, trylast=True)  # within that of pytest-cov, which combines the files at the end
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Delete the coverage data that killed processes have left half written: to combine it would end the run."""
    try:
        return (yield)
    finally:
        if session.config.pluginmanager.hasplugin("_cov") and not hasattr(session.config, "workerinput"):
            data = Path(os.environ.get("COVERAGE_FILE", session.config.rootpath / ".coverage"))
            for path in data.parent.glob(f"{data.name}.*"):
                if not is_intact(path):
                    path.unlink()


def pytest_sessionfinish(exitstatus: int) -> None:
    """Remove from memory what tests have left, such as the files of killed servers, unless a test has failed."""
    if _IN_MEMORY and exitstatus == 0:
        atexit.register(shutil.rmtree, _IN_MEMORY, ignore_errors=True)


def is_intact(database: Path) -> bool:
    """Return True if SQLite finds no damage in a file."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        try:
            return db.execute("PRAGMA quick_check").fetchone() == ("ok",)
        except sqlite3.DatabaseError:
            return False


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip a directory of which `-m` takes no test: each process would import its modules."""
    marker = {"interop": "interop", "packaging": "package"}.get(collection_path.name)
    chosen = config.option.markexpr
    return True if marker and (f"not {marker}" in chosen or chosen.startswith("thorough")) else None


def is_compiled(module: Path) -> bool:
    """Return True if there is bytecode of a test module, as new as the module."""
    tag = f"{sys.implementation.cache_tag}-pytest-{pytest.__version__}"
    compiled = module.parent / "__pycache__" / f"{module.stem}.{tag}.pyc"
    return compiled.exists() and compiled.stat().st_mtime >= module.stat().st_mtime


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the names of new directories: numbers of our own cost less than those of `mktemp` for each test."""
    top = tmp_path_factory.mktemp("homes")
    return (top / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_home(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep each test away from the state, config and environment of the user, and from secrets of other tests.

    A token such as `another` would be masked in the messages of each later test in the same process.
    """
    home = next(_homes)
    home.mkdir()
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    for name, value in {"HOME": home, "XDG_STATE_HOME": home / "state", "XDG_CONFIG_HOME": home / "config"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("uploader_cli.core.masking._secrets", set())
    monkeypatch.setattr("uploader_cli.core.masking._places", {})


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """Run the bundled server in this process."""
    with running_server() as running:
        yield running


@pytest.fixture
def dest() -> str:
    """Return a directory of a server that no other test uses: the name of `tmp_path` may return."""
    return uuid.uuid4().hex


@pytest.fixture
def make_files(tmp_path: Path) -> Callable[..., Path]:
    """Make a directory of files: `make_files(a=3, **{"sub/b.mp4": b"…"})`; a number is a size in bytes."""

    def make(directory: str = "files", /, **files: int | bytes) -> Path:
        top = tmp_path / directory
        for name, content in files.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else name.encode()[:1] * content)
        return top

    return make
