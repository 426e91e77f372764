"""Command lines: each command's settings and exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from feature_samples import of
from typer.main import get_command

from uploader_cli import render
from uploader_cli.__main__ import main
from uploader_cli.cli.app import app
from uploader_cli.settings import OPTIONS, Header

if TYPE_CHECKING:
    from cli.conftest import Runs

_RESUME = get_command(app).commands["resume"]  # type: ignore[attr-defined]
RESUME_OPTIONS = {param.name for param in _RESUME.params} & OPTIONS.keys()
ID = "3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b"


def test_upload_passes_its_paths_and_settings(runs: Runs) -> None:
    assert main(["upload", "a.mp4", "some dir"]) == 0
    name, settings, rest = runs.calls[0]
    assert (name, rest) == ("upload_command", (["a.mp4", "some dir"],))
    assert settings.server == "http://localhost:8005"
    assert {settings.source(name).name for name in OPTIONS} == {"default", "UPLOADER_SERVER"}


def test_upload_takes_every_option(runs: Runs, tmp_path: Path) -> None:
    pem = tmp_path / "some.pem"
    pem.touch()
    argv = ["upload", "-s", "files.example", "-c", "scenic", "--protocol", "batch", "-j", "auto"]
    argv += ["--include", "*.mp4", "--include", "*.avi", "--exclude", "tmp/", "--follow-links"]
    argv += ["--chunk-size", "1M", "--checksum", "sha1", "--limit-rate", "5MB", "--skip-existing", "--verify"]
    argv += [
        "--no-resume",
        "--state-dir",
        "state",
        "--retries",
        "1",
        "--max-wait",
        "2",
        "--stall",
        "3",
        "--fail-fast",
        "--resend-unknown",
    ]
    argv += ["--cancel-on-interrupt", "--json", "--progress", "plain", "-vv", "--log-file", "log", "--no-quiet"]
    argv += ["--token-file", "token", "--token-command", "echo x", "--header", "X-A: 1", "--header", "X-B: 2"]
    argv += ["--ca-bundle", str(pem), "--client-cert", str(pem), "--insecure", "--proxy", "proxy:1", "a"]
    argv += ["--log-level", "debug", "--profile", "staging"]
    Path("uploader.toml").write_text("[profile.staging]\n", encoding="utf-8")
    assert main(argv) == 0
    settings = runs.settings
    assert (settings.server, settings.category, settings.protocol) == ("https://files.example", "scenic", "batch")
    assert (settings.jobs, settings.include, settings.exclude) == ("auto", ("*.mp4", "*.avi"), ("tmp/",))
    assert (settings.retries, settings.max_wait, settings.stall) == (1, 2.0, 3.0)
    assert (settings.chunk_size, settings.checksum, settings.limit_rate) == (1 << 20, "sha1", 5_000_000)
    assert (settings.skip_existing, settings.verify, settings.resume) == (True, True, False)
    assert settings.state_path == Path.cwd() / "state"
    assert settings.follow_links
    assert settings.fail_fast
    assert settings.resend_unknown
    assert settings.cancel_on_interrupt
    assert settings.json
    assert settings.insecure
    assert (settings.progress, settings.verbose, settings.quiet) == ("plain", 2, False)
    assert (settings.log_file, settings.log_level) == (Path.cwd() / "log", "debug")
    assert (settings.token_file, settings.profile) == (Path.cwd() / "token", "staging")
    assert (settings.token_command, settings.proxy) == ("echo x", "http://proxy:1")
    assert (settings.ca_bundle, settings.client_cert) == (pem, pem)
    assert settings.header == (Header("X-A", "1"), Header("X-B", "2"))
    assert {str(settings.sources["jobs"]), str(settings.sources["verbose"])} == {"--jobs", "--verbose"}


def test_upload_to_a_tus_endpoint(runs: Runs) -> None:
    """It outranks the server that the environment names."""
    assert main(["upload", "--tus-endpoint", "localhost:1080/files/", "a"]) == 0
    assert runs.settings.target_url == "http://localhost:1080/files/"


@pytest.mark.parametrize("option", [["-s", "localhost"], ["-c", "scenic"], ["--protocol", "batch"]], ids=" ".join)
def test_options_that_a_tus_endpoint_excludes(
    runs: Runs, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert main(["upload", "--tus-endpoint", "localhost:1080/files/", *option, "a"]) == 2
    assert "and --tus-endpoint exclude each other" in capsys.readouterr().err
    assert runs.calls == []


@pytest.mark.parametrize(
    "argv", [["watch", ID], ["status", ID], ["cancel", ID], ["delete", ID], ["validate", "a"]], ids=lambda argv: argv[0]
)
def test_other_commands_ignore_a_tus_endpoint(runs: Runs, monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    monkeypatch.setenv("UPLOADER_TUS_ENDPOINT", "localhost:1080/files/")
    assert main(argv) == 0
    assert runs.settings.target_url == "http://localhost:8005"
    monkeypatch.delenv("UPLOADER_SERVER")
    assert main(argv) == 2


@pytest.mark.parametrize(
    "argv",
    [
        of("doctor", ["doctor"]),
        of("smoke", ["smoke"]),
        of("check", ["check", "a"]),
        of("fleet", ["import", "--on", "local:2", "a"]),
        ["status", ID],
    ],
)
def test_other_commands_ignore_an_upload_url(runs: Runs, monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    monkeypatch.setenv("UPLOADER_UPLOAD_URL", "https://uploads.example/u1")
    assert main(argv) == 0
    assert runs.settings.target_url == "http://localhost:8005"


@pytest.mark.feature("fleet")
def test_upload_ignores_where_imports_run(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOADER_ON", "local:2")
    assert main(["upload", "a"]) == 0
    assert runs.settings.on is None


@pytest.mark.feature("plan")
def test_upload_dry_run_needs_no_server(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPLOADER_SERVER")
    assert main(["upload", "--dry-run", "a"]) == 0
    assert runs.settings.dry_run


def test_upload_json_schema(runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no path, and prints nothing else on stdout."""
    schema = SimpleNamespace(schema_text=lambda: '{"$schema": "x"}')
    monkeypatch.setitem(sys.modules, "uploader_cli.render.event_schema", schema)
    monkeypatch.setattr(render, "event_schema", schema, raising=False)
    assert main(["upload", "--json-schema"]) == 0
    assert capsys.readouterr() == ('{"$schema": "x"}\n', "")
    assert runs.calls == []


def test_upload_without_a_path_needs_a_list(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["upload", "-s", "localhost:9"]) == 2
    monkeypatch.setenv("UPLOADER_FROM_FILE", "list.txt")
    assert main(["upload", "-s", "localhost:9"]) == 0
    assert (runs.calls[0][0], runs.calls[0][2]) == ("upload_command", ([],))


def test_watch_takes_an_id_in_capitals_and_its_options(runs: Runs) -> None:
    assert main(["watch", ID.upper(), "--json", "--stall", "9"]) == 0
    assert main(["watch", ID, "--wait", "0.5", "--progress", "none"]) == 0
    assert [(name, rest) for name, _, rest in runs.calls] == [
        ("watch_command", ((ID,), 30.0)),
        ("watch_command", ((ID,), 0.5)),
    ]


def test_watch_of_a_repeated_session_id_watches_it_once(runs: Runs) -> None:
    other = ID.replace("3", "4")
    assert main(["watch", ID, other, ID.upper(), "--wait", "0"]) == 0
    assert runs.calls[0][2] == ((ID, other), 0.0)


def test_watch_refuses_what_is_no_id(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", ID, "no-id"]) == 2
    assert "'no-id' is not an ID" in capsys.readouterr().err
    assert runs.calls == []


def test_watch_wait_must_be_seconds(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", ID, "--wait", "soon"]) == 2
    assert capsys.readouterr().err.startswith("error: --wait: must be a number of seconds")


def test_status_passes_the_id(runs: Runs) -> None:
    assert main(["status", ID, "--json"]) == 0
    assert (runs.calls[0][0], runs.calls[0][2], runs.settings.json) == ("status", (ID,), True)


def test_cancel_passes_the_id(runs: Runs) -> None:
    assert main(["cancel", ID]) == 0
    assert (runs.calls[0][0], runs.calls[0][2]) == ("cancel", (ID,))


def test_delete_passes_the_id(runs: Runs) -> None:
    assert main(["delete", ID]) == 0
    assert (runs.calls[0][0], runs.calls[0][2]) == ("delete", (ID,))


def test_validate_passes_its_paths_and_filters(runs: Runs) -> None:
    assert main(["validate", "a", "b", "--exclude", "*.tmp"]) == 0
    assert (runs.calls[0][0], runs.calls[0][2]) == ("validate", (["a", "b"],))


def test_resume_passes_only_what_was_typed(runs: Runs) -> None:
    """The run's own settings are not known yet: the typed values are passed on."""
    assert main(["resume"]) == 0
    assert main(["resume", "1a2b"]) == 0
    assert [(name, run, rest) for name, run, rest in runs.calls] == [
        ("resume_command", None, (dict.fromkeys(RESUME_OPTIONS),)),
        ("resume_command", "1a2b", (dict.fromkeys(RESUME_OPTIONS),)),
    ]


def test_resume_accepts_the_options_that_may_be_overridden(runs: Runs) -> None:
    argv = ["resume", "1a", "-j", "8", "--limit-rate", "1M", "--retries", "9", "--max-wait", "5", "--stall", "4"]
    argv += ["--no-resend-unknown", "--verify", "--cancel-on-interrupt", "--state-dir", "state", "--json", "-q", "-v"]
    argv += ["--progress", "none", "--log-file", "log", "--token-file", "~/token", "--token-command", "echo x"]
    argv += ["--header", "X-A: 1", "--ca-bundle", "ca.pem", "--client-cert", "/own.pem", "--insecure", "--proxy", "p:1"]
    argv += ["--log-level", "error", "--profile", "p", "--lenient"]
    argv += ["--report", "r.json", "--report", "r.csv", "--failed-to", "f.csv"]
    argv += ["--warn-latency", "300", "--warn-error-rate", "5"]
    assert main(argv) == 0
    flags = runs.calls[0][2][0]
    typed = {
        "jobs": "8",
        "limit_rate": "1M",
        "retries": "9",
        "max_wait": "5",
        "stall": "4",
        "resend_unknown": False,
        "verify": True,
        "cancel_on_interrupt": True,
        "state_dir": "state",
        "json": True,
        "progress": "none",
        "quiet": True,
        "verbose": 1,
        "log_file": "log",
        "log_level": "error",
        "profile": "p",
        "lenient": True,
        "report": ["r.json", "r.csv"],
        "failed_to": "f.csv",
        "warn_latency": "300",
        "warn_error_rate": "5",
        "token_file": "~/token",
        "token_command": "echo x",
        "header": ["X-A: 1"],
        "ca_bundle": "ca.pem",
        "client_cert": "/own.pem",
        "insecure": True,
        "proxy": "p:1",
    }
    assert flags == dict.fromkeys(RESUME_OPTIONS) | typed


def test_runs_passes_the_state_directory(runs: Runs) -> None:
    assert main(["runs", "--state-dir", "/state"]) == 0
    name, flags, _ = runs.calls[0]
    assert (name, flags["state_dir"]) == ("show", "/state")


def test_resume_list_passes_its_options(runs: Runs) -> None:
    assert main(["resume", "--list", "--json"]) == 0
    name, flags, rest = runs.calls[0]
    assert (name, flags, rest) == ("show", dict.fromkeys(RESUME_OPTIONS) | {"json": True}, ())


def test_resume_forget_passes_the_run(runs: Runs) -> None:
    assert main(["resume", "--forget", "1a2b", "--state-dir", "/state"]) == 0
    name, run, (flags,) = runs.calls[0]
    assert (name, run, flags["state_dir"]) == ("forget", "1a2b", "/state")


@pytest.mark.parametrize(
    "argv", [["1a", "--list"], ["1a", "--forget", "2b"], ["--list", "--forget", "2b"]], ids=" ".join
)
def test_resume_refuses_exclusive_options(runs: Runs, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert main(["resume", *argv]) == 2
    assert "exclude each other" in capsys.readouterr().err
    assert runs.calls == []


@pytest.mark.parametrize("argv", [[""], ["--forget", ""]])
def test_resume_refuses_an_empty_id(runs: Runs, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    """As a script passes it whose variable is unset."""
    assert main(["resume", *argv]) == 2
    assert "is not an ID" in capsys.readouterr().err
    assert runs.calls == []


@pytest.mark.parametrize("command", ["status", "cancel", "delete"])
@pytest.mark.parametrize("id_", ["1", "../../etc", "3f2b8c1e5d4a", "", f"{ID}/.."])
def test_ids_must_be_uuids(runs: Runs, capsys: pytest.CaptureFixture[str], command: str, id_: str) -> None:
    assert main([command, id_]) == 2
    assert "is not an ID" in capsys.readouterr().err
    assert runs.calls == []


def test_settings_come_from_environment_and_config(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config" / "uploader").mkdir(parents=True)
    (tmp_path / "config" / "uploader" / "config.toml").write_text("retries = 7\nproxy = 'proxy:1'")
    Path("uploader.toml").write_text("retries = 8\ncategory = 'scenic'")
    monkeypatch.setenv("UPLOADER_CATEGORY", "personal")
    assert main(["upload", "a"]) == 0
    assert (runs.settings.retries, runs.settings.category, runs.settings.proxy) == (8, "personal", "http://proxy:1")


@pytest.mark.parametrize("quiet", [False, True])
def test_ignored_config_is_reported(runs: Runs, capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    Path("uploader.toml").write_text("jobs = 1")
    Path("pyproject.toml").write_text("[tool.uploader]\njobs = 2")
    assert main(["upload", "a", *(["-q"] if quiet else [])]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert ("note: [tool.uploader] in" in stderr) is not quiet


@pytest.mark.parametrize("code", [0, 3, 4, 5, 6, 7, 130, 143])
def test_command_returns_the_exit_code_of_the_run(runs: Runs, code: int) -> None:
    runs.code = code
    assert main(["upload", "a"]) == code
