"""From what was typed to what is run: each command's settings, and the exit code it ends with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import uploader_cli
from uploader_cli import render
from uploader_cli.__main__ import main
from uploader_cli.settings import Header, Settings

ID = "3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b"


class Runs:
    """Stands where `uploader_cli.run` is; keeps what each function was called with, and ends with `code`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Settings, tuple[Any, ...]]] = []
        self.code = 0
        self.error: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        def called(settings: Settings, *rest: Any) -> int:
            self.calls.append((name, settings, rest))
            if self.error:
                raise self.error
            return self.code

        return called

    @property
    def settings(self) -> Settings:
        return self.calls[-1][1]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    """The commands, in an empty directory, without settings of the machine's user."""
    fake = Runs()
    monkeypatch.setitem(sys.modules, "uploader_cli.run", fake)
    monkeypatch.setattr(uploader_cli, "run", fake, raising=False)
    for name in [name for name in os.environ if name.startswith("UPLOADER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("UPLOADER_SERVER", "localhost:8005")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return fake


def test_upload(runs: Runs) -> None:
    assert main(["upload", "a.mp4", "some dir"]) == 0
    name, settings, rest = runs.calls[0]
    assert (name, rest) == ("upload_command", (["a.mp4", "some dir"],))
    assert settings.server == "http://localhost:8005"
    assert all(source.name in ("default", "UPLOADER_SERVER") for source in settings.sources.values())


def test_upload_takes_every_option(runs: Runs, tmp_path: Path) -> None:
    pem = tmp_path / "some.pem"
    pem.touch()
    argv = ["upload", "-s", "files.example", "-c", "scenic", "--protocol", "batch", "-j", "auto"]
    argv += ["--include", "*.mp4", "--include", "*.avi", "--exclude", "tmp/", "--follow-links"]
    argv += ["--retries", "1", "--max-wait", "2", "--stall", "3", "--fail-fast", "--resend-unknown"]
    argv += ["--cancel-on-interrupt", "--json", "--progress", "plain", "-vv", "--log-file", "log", "--no-quiet"]
    argv += ["--token-file", "token", "--token-command", "echo x", "--header", "X-A: 1", "--header", "X-B: 2"]
    argv += ["--ca-bundle", str(pem), "--client-cert", str(pem), "--insecure", "--proxy", "proxy:1", "a"]
    assert main(argv) == 0
    settings = runs.settings
    assert (settings.server, settings.category, settings.protocol) == ("https://files.example", "scenic", "batch")
    assert (settings.jobs, settings.include, settings.exclude) == ("auto", ("*.mp4", "*.avi"), ("tmp/",))
    assert (settings.retries, settings.max_wait, settings.stall) == (1, 2.0, 3.0)
    assert settings.follow_links
    assert settings.fail_fast
    assert settings.resend_unknown
    assert settings.cancel_on_interrupt
    assert settings.json
    assert settings.insecure
    assert (settings.progress, settings.verbose, settings.quiet) == ("plain", 2, False)
    assert (settings.log_file, settings.token_file) == (Path.cwd() / "log", Path.cwd() / "token")
    assert (settings.token_command, settings.proxy) == ("echo x", "http://proxy:1")
    assert (settings.ca_bundle, settings.client_cert) == (pem, pem)
    assert settings.header == (Header("X-A", "1"), Header("X-B", "2"))
    assert {str(settings.sources["jobs"]), str(settings.sources["verbose"])} == {"--jobs", "--verbose"}


def test_upload_dry_run(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPLOADER_SERVER")
    assert main(["upload", "--dry-run", "a"]) == 0
    assert [name for name, _, _ in runs.calls] == ["dry_run"]


def test_upload_json_schema(runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no path, and says nothing else on stdout."""
    ndjson = SimpleNamespace(schema_text=lambda: '{"$schema": "x"}')
    monkeypatch.setitem(sys.modules, "uploader_cli.render.ndjson", ndjson)
    monkeypatch.setattr(render, "ndjson", ndjson, raising=False)
    assert main(["upload", "--json-schema"]) == 0
    assert capsys.readouterr() == ('{"$schema": "x"}\n', "")
    assert runs.calls == []


def test_upload_without_a_path(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upload"]) == 2
    assert "PATH" in capsys.readouterr().err
    assert runs.calls == []


def test_watch(runs: Runs) -> None:
    assert main(["watch", ID.upper(), "--json", "--stall", "9"]) == 0
    assert main(["watch", ID, "--wait", "0.5", "--progress", "none"]) == 0
    assert [(name, rest) for name, _, rest in runs.calls] == [
        ("watch_command", (ID, 30.0)),
        ("watch_command", (ID, 0.5)),
    ]


def test_watch_wait_must_be_seconds(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", ID, "--wait", "soon"]) == 2
    assert capsys.readouterr().err.startswith("error: --wait: must be a number of seconds")


def test_status(runs: Runs) -> None:
    assert main(["status", ID, "--json"]) == 0
    assert (runs.calls[0][0], runs.calls[0][2], runs.settings.json) == ("status_command", (ID,), True)


def test_cancel(runs: Runs) -> None:
    assert main(["cancel", ID]) == 0
    assert (runs.calls[0][0], runs.calls[0][2]) == ("cancel_command", (ID,))


def test_delete(runs: Runs) -> None:
    assert main(["delete", ID]) == 0
    assert (runs.calls[0][0], runs.calls[0][2]) == ("delete_command", (ID,))


def test_validate(runs: Runs) -> None:
    assert main(["validate", "a", "b", "--exclude", "*.tmp"]) == 0
    assert (runs.calls[0][0], runs.calls[0][2]) == ("validate_command", (["a", "b"],))


@pytest.mark.parametrize("command", ["watch", "status", "cancel", "delete"])
@pytest.mark.parametrize("id_", ["1", "../../etc", "3f2b8c1e5d4a", "", f"{ID}/.."])
def test_ids_must_be_uuids(runs: Runs, capsys: pytest.CaptureFixture[str], command: str, id_: str) -> None:
    assert main([command, id_]) == 2
    assert "is no id" in capsys.readouterr().err
    assert runs.calls == []


def test_the_environment_and_the_config_are_asked(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config" / "uploader").mkdir(parents=True)
    (tmp_path / "config" / "uploader" / "config.toml").write_text("retries = 7\nproxy = 'proxy:1'")
    Path("uploader.toml").write_text("retries = 8\ncategory = 'scenic'")
    monkeypatch.setenv("UPLOADER_CATEGORY", "personal")
    assert main(["upload", "a"]) == 0
    assert (runs.settings.retries, runs.settings.category, runs.settings.proxy) == (8, "personal", "http://proxy:1")


@pytest.mark.parametrize("quiet", [False, True])
def test_a_config_that_is_ignored_is_noted(runs: Runs, capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    Path("uploader.toml").write_text("jobs = 1")
    Path("pyproject.toml").write_text("[tool.uploader]\njobs = 2")
    assert main(["upload", "a", *(["-q"] if quiet else [])]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert ("note: [tool.uploader] in" in stderr) is not quiet


@pytest.mark.parametrize("code", [0, 3, 4, 5, 6, 7, 130, 143])
def test_the_exit_code_of_the_run_is_the_command_s(runs: Runs, code: int) -> None:
    runs.code = code
    assert main(["upload", "a"]) == code
