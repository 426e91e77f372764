"""In GitHub Actions: annotations of `upload` and `smoke` on stderr, and the summary of the step."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from command import environment, uploader
from serving import running_server

from uploader_cli import upload
from uploader_cli.features.github import page

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


def shown_errors(err: str) -> list[tuple[dict[str, str], str]]:
    """Parse as the runner does: properties and message of each error."""
    found = re.findall(r"^::error(?: ([^\n]*?))?::(.*)$", err, re.MULTILINE)
    return [(dict(pair.split("=", 1) for pair in head.split(",") if pair), unquote(text)) for head, text in found]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("a b.mp4", "::error file=a b.mp4::no"),
        ("50%,x:y.mp4", "::error file=50%25%2Cx%3Ay.mp4::no"),
        ("a\r\n::error::b", "::error file=a%0D%0A%3A%3Aerror%3A%3Ab::no"),
        ("a\x1b[2J", "::error file=a\\x1b[2J::no"),
    ],
)
def test_annotation_is_escaped_as_github_documents(path: str, line: str) -> None:
    assert page.error("no", file=path) == line + "\n"
    assert page.error("50% of\na:b,c") == "::error::50%25 of%0Aa:b,c\n"


def test_each_failure_of_an_upload_is_printed_once_and_ten_are_annotated(
    make_files: Callable[..., Path], tmp_path: Path
) -> None:
    names = [f"{number:02}.exe" for number in range(12)]
    directory = make_files(**dict.fromkeys(names, 10))
    job = {"GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_WORKSPACE": str(tmp_path)}
    with running_server(types=("mp4",)) as server:
        done = uploader("upload", *(directory / name for name in names), "-s", server.url, home=tmp_path, **job)
        plain = uploader("upload", *(directory / name for name in names), "-s", server.url, home=tmp_path)
    assert done.code == plain.code == 4
    found = shown_errors(done.err)
    assert len(found) == 10
    for properties, message in found:
        assert (tmp_path / properties["file"]).is_file()
        assert message.startswith(f"{tmp_path / properties['file']}: ")
    assert "::error" not in plain.err
    for name in names:
        assert sum(name in line for line in done.err.splitlines()) == 1
        assert sum(name in line for line in plain.err.splitlines()) == 1


def test_annotation_of_a_run_that_ended_early(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    server.faults.add("status:session:401")
    done = uploader("upload", make_files(**{"a.mp4": 10}), "-s", server.url, home=tmp_path, GITHUB_ACTIONS="true")
    assert done.code == 5
    assert [message.partition(":")[0] for _, message in shown_errors(done.err)] == ["the run ended early"]


@pytest.mark.feature("smoke")
def test_smoke_annotates_its_failures_and_adds_to_the_step_summary(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    job = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(file)}
    few = ("--only", "health", "--only", "session", "--only", "batch-one", "--only", "validate")
    with running_server(fail_files=("*-one.*",)) as server:
        server.faults.next_answers("POST", "/api/upload/validate", [500, 500])
        done = uploader("smoke", "-s", server.url, *few, home=tmp_path, **job)
        quiet = uploader("smoke", "-s", server.url, *few, "--json", home=tmp_path, **job)
    assert done.code == quiet.code == 4
    for one in (done, quiet):
        ((properties, message),) = shown_errors(one.err)  # `validate` does not count
        assert properties == {"title": "uploader smoke%3A batch-one"}
        assert message.startswith("a batch of one file is stored")
    assert done.err.count("a batch of one file is stored") == done.err.count("--fail-file") == 1
    assert done.err.count("files can be validated") == 1
    before, *tables = file.read_text().split("## ")
    assert (before, len(tables)) == ("before\n", 2)
    assert tables[0].startswith("✗ 1 of 4 checks failed: batch-one")
    assert "| batch-one | fail | a batch of one file is stored" in tables[0]
    assert "| validate | " in tables[0]
    assert "| health |" not in tables[0]
    assert tables[0].endswith("\n\n")


@pytest.mark.feature("smoke")
def test_smoke_without_github_writes_no_annotation(server: EmbeddedServer, tmp_path: Path) -> None:
    server.faults.next_answers("GET", "/health", [500])
    done = uploader("smoke", "-s", server.url, "--only", "health", home=tmp_path)
    assert done.code == 4
    assert "::error" not in done.err
    assert done.err.count("GET /health returns OK") == done.err.count("500 without an error code") == 1


@pytest.mark.feature("smoke")
def test_smoke_with_an_unwritable_step_summary_warns(server: EmbeddedServer, tmp_path: Path) -> None:
    job = {"GITHUB_STEP_SUMMARY": str(tmp_path / "gone" / "summary")}
    done = uploader("smoke", "-s", server.url, "--only", "health", home=tmp_path, **job)
    assert done.code == 0
    assert "warning: GITHUB_STEP_SUMMARY: " in done.err


def test_step_summary_gets_markdown_and_its_errors_change_nothing(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """The Markdown is appended to GitHub's file automatically."""
    line = ("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "-q", "--no-resume")
    for _ in range(2):
        assert uploader(*line, home=tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "summary")).code == 0
    assert (tmp_path / "summary").read_text().count("## ✓ 1 file uploaded") == 2
    done = uploader(*line, home=tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "gone" / "summary"))
    assert (done.code, "warning: GITHUB_STEP_SUMMARY: " in done.err) == (0, True)


def test_library_writes_no_step_summary(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of the command alone."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    assert upload(make_files(**{"a.mp4": 10}), server=server.url).ok
    assert not (tmp_path / "summary").exists()


def test_step_summary_is_unchanged_on_a_full_disk(tmp_path: Path) -> None:
    """Other steps write to it, too."""
    (tmp_path / "summary.md").write_text("# theirs\n")
    script = (
        "import resource, signal\n"
        "from pathlib import Path\n"
        "from uploader_cli.features.github.page import append\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    append(Path('summary.md'), iter(['x' * 70_000, 'y' * 70_000]))\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    line = [sys.executable, "-B", "-c", script]
    done = subprocess.run(line, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert done.stdout == "File too large\n"
    assert (tmp_path / "summary.md").read_text() == "# theirs\n"
