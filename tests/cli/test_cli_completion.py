"""Completion: the script for each shell, the program's answers, and bash itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from feature_samples import of
from typer.main import get_command

from uploader_cli.__main__ import main
from uploader_cli.cli.app import app
from uploader_cli.cli.config import SHELLS
from uploader_cli.settings import OPTIONS, user_config_file
from uploader_cli.settings.places import user_state_directory
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import RunTarget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Callable[..., str]:
    """Return the program's completions for `line`, the text typed so far."""

    def call(line: str, shell: str = "bash") -> str:
        words = line.split(" ")
        monkeypatch.setenv("_UPLOADER_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", "\n".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_WORD_TO_COMPLETE", words[-1])
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        assert main([]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.strip()

    return call


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_script_of_each_shell(shell: str, capsys: Capture) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_UPLOADER_COMPLETE{' = ' if shell == 'powershell' else '='}" in script
    assert f"complete_{shell}" in script
    assert {
        "bash": "complete -o default -F _uploader_completion uploader",
        "zsh": "#compdef uploader",
        "fish": "complete --command uploader",
        "powershell": "Register-ArgumentCompleter -Native -CommandName uploader",
    }[shell] in script


def test_unsupported_shell_has_no_completion_script(capsys: Capture) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "use bash, zsh, fish, powershell" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shell", "answer"),
    [
        ("bash", "batch"),
        ("zsh", "_arguments '*: :((\"batch\"))'"),
        ("fish", "batch"),
        ("powershell", "batch::: "),
    ],
)
def test_completions_have_the_format_of_the_shell(shell: str, answer: str, ask: Callable[..., str]) -> None:
    assert ask("uploader upload --protocol b", shell) == answer.strip()


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_offers_commands_and_options(shell: str, ask: Callable[..., str]) -> None:
    assert "validate" in ask("uploader v", shell)
    assert "--chunk-size" in ask("uploader upload --ch", shell)


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.names])
def test_completion_offers_the_values_of_an_option(name: str, ask: Callable[..., str]) -> None:
    assert ask(f"uploader upload {OPTIONS[name].flag} ").splitlines() == list(OPTIONS[name].names)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("uploader config ", ["show", "init", "path"]),
        ("uploader completion ", list(SHELLS)),
        of("demo", "uploader serve --as ", ["bundled", "reference"]),
        of("demo", "uploader serve --access-log-format j", ["json"]),
        of("demo", "uploader demo --progress p", ["plain"]),
        of("shards", "uploader report ", ["merge", "show"]),
        of("reports", "uploader report show ", []),
        of("smoke", "uploader smoke --only batch-", ["batch-one", "batch-several", "batch-cut"]),
        of("smoke", "uploader smoke --skip l", ["long-polling", "lookup", "limit-type", "limit-size", "limit-count"]),
        ("uploader upload --log-level=e", ["error"]),
        ("uploader upload ", []),
        ("uploader upload --token-file ", []),
    ],
)
def test_completion_leaves_file_names_to_the_shell(line: str, offered: list[str], ask: Callable[..., str]) -> None:
    assert ask(line).splitlines() == offered


def test_completion_offers_runs_to_resume_and_open_sessions(ask: Callable[..., str]) -> None:
    """None without a journal, which completion does not create."""
    assert [ask(f"uploader {command} ") for command in ("resume", "watch", "status")] == [""] * 3
    state = user_state_directory()
    assert state is not None
    assert not state.exists()
    with Journal(state) as journal:
        journal.begin(RunTarget("http://h", "personal"), {"paths": ["a"]}).finish(ok=True)
        run = journal.begin(RunTarget("http://h", "personal"), {"paths": ["b"]})
        run.session_opened("3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b", "personal")
    assert ask("uploader resume ") == ask("uploader resume --forget ") == run.id
    assert re.search(rf'{run.id}"?\\?:.*20\d\d-\d\d-\d\d .*files, b', ask("uploader resume ", "zsh"))
    for command in ("watch", "status", "cancel"):
        assert ask(f"uploader {command} 3f") == "3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b"


def test_completion_offers_profiles(ask: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both files; none where one is broken, and no words about it in the middle of a line."""
    monkeypatch.chdir(tmp_path)
    own = user_config_file()
    own.parent.mkdir(parents=True)
    own.write_text("[profile.staging]\n[profile.x]")
    (tmp_path / "uploader.toml").write_text("[profile.ci]")
    assert ask("uploader upload --profile ").splitlines() == ["ci", "staging", "x"]
    assert ask("uploader upload --profile s") == "staging"
    own.write_text("[profile")
    assert ask("uploader upload --profile ") == ""


@pytest.mark.thorough
def test_bash_completes_with_the_printed_script(tmp_path: Path) -> None:
    """The real one, with the script that is printed, the program being found by its name."""
    program = tmp_path / "bin" / "uploader"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m uploader_cli "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = """
        set -eu
        source <(uploader completion bash)
        complete -p uploader
        offer() {
            COMP_WORDS=("$@")
            COMP_CWORD=$(($# - 1))
            _uploader_completion uploader
            echo "${COMPREPLY[@]}"
        }
        offer uploader comp
        offer uploader upload --protocol ""
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "complete -o default -F _uploader_completion uploader",
        "completion",
        "auto batch tus ietf",
    ]


def test_completion_imports_no_heavy_module() -> None:
    script = (
        "import sys, json\nfrom uploader_cli.__main__ import main\n"
        "main([])\nsys.stderr.write(json.dumps(sorted(sys.modules)))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    asked = {"_UPLOADER_COMPLETE": "complete_bash", "COMP_WORDS": "uploader upload --category ", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=90, env={**kept, **asked}
    )
    assert done.stdout.split() == ["personal", "scenic"]
    assert not {"requests", "socketio", "rich", "platformdirs", "tomllib"} & set(json.loads(done.stderr))


def test_completion_shows_one_help_line_per_command() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert all(command.get_short_help_str() for command in commands.values())
