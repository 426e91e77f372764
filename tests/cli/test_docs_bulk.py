"""The commands of docs/bulk-import.md, run as each scheduler runs them, give a complete merged report."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import DEADLINE, environment
from docs_pages import blocks, codes, page, rows, section
from forking import make_program
from serving import running_server

from uploader_cli.__main__ import main
from uploader_cli.features.shards import option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from uploader_server.serving import EmbeddedServer

PAGE = page("bulk-import.md")
JOBS, FILES = 4, 40
SLURM = {"SLURM_ARRAY_TASK_MIN": 1, "SLURM_ARRAY_TASK_STEP": 1, "SLURM_ARRAY_TASK_COUNT": JOBS}
ARRAYS = {
    "Kubernetes": [{"JOB_COMPLETION_INDEX": number} for number in range(JOBS)],
    "SLURM": [{**SLURM, "SLURM_ARRAY_TASK_ID": number} for number in range(1, JOBS + 1)],
    "GitLab": [{"CI_NODE_INDEX": number, "CI_NODE_TOTAL": JOBS} for number in range(1, JOBS + 1)],
}
"""What each scheduler sets for each job."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the files and directories that the page names."""
    for number in range(FILES):
        file = tmp_path / f"videos/{number % 3}/{number}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%03d" % number)
    (tmp_path / "reports").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(scheduler: str) -> list[list[str]]:
    """Return the commands of a section in order, as words with unexpanded variables."""
    folded = re.sub(r"\\?\n +--", " --", section(PAGE, f"### {scheduler}"))
    return [shlex.split(line) for line in re.findall(r"^ *(?:- )?((?:uploader|mkdir) .*)$", folded, re.MULTILINE)]


def run(words: Sequence[str], place: Path) -> int:
    """Run a command as a shell does: expand variables and patterns, with the page's directories moved to `place`."""
    named = (os.path.expandvars(word).replace("/data/", f"{place}/") for word in words)
    moved = (re.sub(r"^/reports\b", f"{place}/reports", word) for word in named)
    command, *rest = [part for word in moved for part in _matching(word)]
    return main([*rest, "-q"]) if command == "uploader" else subprocess.run([command, *rest], check=False).returncode


def _matching(word: str) -> Iterator[str]:
    pattern = Path(word)
    yield from sorted(map(str, pattern.parent.glob(pattern.name))) if "*" in pattern.name else (word,)


def check_all_there(server: EmbeddedServer, joined: Path) -> None:
    """Check that every file is on the server once, and in the report once."""
    whole = json.loads(joined.read_text())
    assert (whole["missing"], whole["in_several_shards"], whole["counts"]["completed"]) == ([], 0, FILES)
    assert len(whole["runs"]) == JOBS
    assert len(list((server.root / "personal/videos").rglob("*.mp4"))) == FILES


@pytest.mark.thorough
@pytest.mark.parametrize("scheduler", ARRAYS)
def test_docs_job_array_uploads_each_file_once(
    scheduler: str, server: EmbeddedServer, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Run each job with the variables that the scheduler sets, then merge the reports."""
    monkeypatch.setenv("SERVER", server.url)
    *of_each, joining = commands(scheduler)
    for variables in ARRAYS[scheduler]:
        with monkeypatch.context() as job:
            for name, value in variables.items():
                job.setenv(name, str(value))
            for words in of_each:
                assert run([word.replace("files.example", server.url) for word in words], place) == 0
    assert run(joining, place) == 0
    check_all_there(server, next(place.rglob("import.json")))
    assert "error" not in capsys.readouterr().err


@pytest.mark.thorough
def test_docs_container_restarted_after_exit_4_completes(
    server: EmbeddedServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run sends only the refused file."""
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    words = [word.replace("files.example", server.url) for word in commands("Kubernetes")[0]]
    server.faults.next_answers("POST", "/api/upload/files/", [400])
    assert run(words, place) == 4
    before = server.faults.count("POST", "/api/upload/files/")
    assert run(words, place) == 0
    assert server.faults.count("POST", "/api/upload/files/") == before + 1


@pytest.mark.thorough
def test_docs_shell_script_runs_all_shards(server: EmbeddedServer, place: Path) -> None:
    """Run all shards in parallel from a shell."""
    (script,) = blocks(section(PAGE, "### By hand"))
    make_program(place / "uploader")
    path = f"{place}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script.text.replace("localhost:8005", server.url)],
        cwd=place,
        env=environment(place, PATH=path),
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0
    check_all_there(server, place / "import.json")


@pytest.mark.thorough
def test_docs_check_compares_with_the_server(place: Path, capsys: pytest.CaptureFixture) -> None:
    """The commands of the section exit 0 after the import, and 4 where a file is missing."""
    with running_server(packs=True) as server:
        assert main(["upload", "-q", "-s", server.url, "videos"]) == 0
        words = [shlex.split(line) for line in blocks(section(PAGE, "## Check the result"))[0].text.splitlines()]
        compare = [[word.replace("files.example", server.url) for word in line] for line in words]
        assert [run(line, place) for line in compare] == [0, 0]
        next((server.root / "personal/videos").rglob("*.mp4")).unlink()
        assert [run(line, place) for line in compare] == [4, 4]
    assert "missing: videos/" in capsys.readouterr().out


def test_docs_name_the_scheduler_variables_that_are_read() -> None:
    named = {name for row in rows(section(PAGE, "## Shards")) for cell in row[1:] for name in codes(cell)}
    read = set(re.findall(r'"([A-Z]+_[A-Z_]+)"', Path(option.__file__).read_text(encoding="utf-8")))
    assert {name for name in named if name.isupper() and "/" not in name} == read
