"""Commands without their runs: the fixture `runs` takes the place of what they call."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import feature_samples
import pytest

from uploader_cli.settings import Settings

RUN_MODULES = (
    "run.commands",
    "run.rest_commands",
    "run.runs",
    "run.watch",
    *feature_samples.CALLED.values(),
)


class Runs:
    """Replace the modules that the commands call; keep what each function was called with, and end with `code`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, tuple[Any, ...]]] = []
        self.code = 0
        self.error: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        def called(settings: Any, *rest: Any, **_named: Any) -> int:
            self.calls.append((name, settings, rest))
            if self.error:
                raise self.error
            return self.code

        return called

    def find_sessions(self, _settings: Settings, begins: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, object]]:
        return begins, {}

    @property
    def settings(self) -> Settings:
        settings: Settings = self.calls[-1][1]
        return settings


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    """The commands, in an empty directory, without settings of the machine's user."""
    fake = Runs()
    for name in RUN_MODULES:
        package, _, module = name.rpartition(".")
        monkeypatch.setitem(sys.modules, f"uploader_cli.{name}", fake)
        monkeypatch.setattr(import_module(f"uploader_cli.{package}"), module, fake, raising=False)
    for name in [name for name in os.environ if name.startswith("UPLOADER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("UPLOADER_SERVER", "localhost:8005")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return fake
