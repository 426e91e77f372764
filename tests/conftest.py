"""Fixtures for all tests."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from serving import running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

# A slow machine is no failure of what is tested. `--hypothesis-profile nightly` explores (CONTRIBUTING.md).
settings.register_profile("any machine", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", settings.get_profile("any machine"), max_examples=5000, print_blob=True)
settings.load_profile("any machine")


# Whoever started the tests may have ignored these (`nohup`, a job in the background); what they start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the state, config or environment of whoever runs it."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    for name, value in {"HOME": home, "XDG_STATE_HOME": home / "state", "XDG_CONFIG_HOME": home / "config"}.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """The bundled server, in this process."""
    with running_server() as running:
        yield running


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
