"""The commands and the Python examples of README.md and docs/ are run as they stand there.

Comments in the line before a block: `<!-- run by: tests/FILE.py::TEST -->` names another test that runs it,
`<!-- not run: REASON -->` says why none does. The exit code of a command is 0, or N where its line ends with
`# exit code N`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from command import DEADLINE, environment, uploader
from docs_pages import BLOCK, ROOT, Block, blocks, missing_tests
from forking import make_program
from typer.main import get_command

from uploader_cli.cli.app import app
from uploader_server.__main__ import configured, parser
from uploader_server.config import OPTIONS
from uploader_server.serving import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = (ROOT / "docs", ROOT / "docs/commands", ROOT / "docs/servers", ROOT / "docs/tasks")
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(path for one in FOLDERS for path in sorted(one.glob("*.md")))]
PAGES = {str(path.relative_to(ROOT)).removeprefix("docs/"): path.read_text(encoding="utf-8") for path in FILES}
PROTOCOLS = {"protocol.md", "resumable-uploads.md", "extensions.md"}
"""`test_docs_protocol.py` runs their examples in one shell and compares each answer."""
SHELL, PIPELINES = {"sh"}, {"yaml", "groovy"}
CONFIGURATIONS = {"nginx", "haproxy", "ini", "js"}
CODE = {*SHELL, *PIPELINES, *CONFIGURATIONS, "python", "toml"}
NO_CODE = {"text", "json", "http", "csv", "mermaid"}
RUN_BY = re.compile(r"run by: (\S+?)::(\w+)")
NOT_RUN = re.compile(r"not run: \w.+")
TOOLS = ("bash", "curl", "find", "jq")
SERVERS = re.compile(r"(https?://)?(files\.example(\.com)?|staging\.example|(localhost|127\.0\.0\.1):8005)\b")
NEEDS_A_SHELL = re.compile(r"[|<>$*]")
IN_PIPELINES = re.compile(r"^\s*(?:- )?(?:run: |script: |sh ')?(uploader .*?)'?$", re.MULTILINE)
RUN_ID = "3f2b"
"""The id of a run on the pages."""


def is_run_here(block: Block) -> bool:
    return block.language in CODE and not block.comment.startswith(("run by:", "not run:"))


RUN = {
    name: found
    for name, text in PAGES.items()
    if name not in PROTOCOLS and (found := [*filter(is_run_here, blocks(text))])
}


class Terminal:
    """Runs blocks in one directory with a server; `uploader serve` replaces it by another one on a free port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running = ExitStack()
        self._program = directory / "bin" / "uploader"
        self._program.parent.mkdir()
        make_program(self._program)
        self._names: dict[str, Any] = {}
        self._serve()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def run(self, block: Block) -> None:
        """Run one block. Raises AssertionError for another exit code than the page says."""
        if block.language == "python":
            exec(compile(SERVERS.sub(self._server.url, block.text), "the page", "exec"), self._names)
            return
        if block.language == "toml":
            config = self.directory / "config/uploader/config.toml"
            config.parent.mkdir(parents=True, exist_ok=True)
            config.write_text(SERVERS.sub(self._server.url, block.text))
            lines = ["uploader config"]
        elif block.language in PIPELINES:
            lines = IN_PIPELINES.findall(block.text)
            assert lines, f"no command was found in:\n{block.text}"
        else:
            lines = re.sub(r"(?:\\|(?<=\|))\n\s*", " ", block.text).splitlines()
        for line in lines:
            named = re.search(r"# exit code (\d+)$", line)
            assert self._type(line) == (int(named[1]) if named else 0), line

    def _type(self, line: str) -> int:
        words = shlex.split(line, comments=True)
        if words[:2] == ["uploader", "serve"] and ">" not in words:
            self._serve(*words[2:])
            return 0
        line = SERVERS.sub(self._server.url, line)
        if words[:2] == ["uploader", "resume"]:
            line = line.replace(RUN_ID, self._interrupted_run())
        environ = {"UPLOADER_SERVER": self._server.url, "UPLOAD_SERVER": self._server.url}
        if words[0] == "uploader" and not NEEDS_A_SHELL.search(line):
            return uploader(*shlex.split(line, comments=True)[1:], home=self.directory, **environ).code
        command = ["bash", "-o", "pipefail", "-c", line]
        path = f"{self._program.parent}:{os.environ['PATH']}"
        environ = environment(self.directory, NO_PROXY="*", PATH=path, **environ)
        return subprocess.run(command, cwd=self.directory, env=environ, timeout=DEADLINE, check=False).returncode

    def _serve(self, *words: str) -> None:
        self._running.close()
        self._server = self._running.enter_context(EmbeddedServer(configured(vars(parser().parse_args(words)))))

    def _interrupted_run(self) -> str:
        """Leave a run that can be resumed, and return its id."""
        (self.directory / "interrupted.mp4").write_bytes(os.urandom(8))
        self._server.faults.fail_files = ["interrupted.mp4"]
        done = uploader("upload", "interrupted.mp4", "-s", self._server.url, "--json", home=self.directory)
        self._server.faults.fail_files = []
        assert done.code == 4
        return str(done.finished["run"])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the files that the pages name."""
    names = ("holiday.mp4", "last summer/beach.jpg", "dist/app.whl", "videos/1.mp4", "videos/2.mp4", "last-run")
    for name in (*names, "raw/0001.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path / "list.txt").write_text("videos/1.mp4\n")
    os.utime(tmp_path / "last-run", (0, 0))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"the commands need {TOOLS}")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * (name != "README.md")) for name in RUN]
)
def test_commands_and_examples_of_a_page_work(name: str, place: Path) -> None:
    with Terminal(place) as terminal:
        for block in RUN[name]:
            terminal.run(block)


@pytest.mark.parametrize("name", PAGES)
def test_each_block_of_a_page_names_its_language(name: str) -> None:
    """A block that is not found can't be run."""
    text = PAGES[name]
    assert {block.language for block in blocks(text)} <= CODE | NO_CODE
    assert "```" not in BLOCK.sub("", text)
    assert not re.search(r"\n\n {4}", BLOCK.sub("", text)), "an indented block: use a fence with a language"


@pytest.mark.parametrize("name", PAGES)
def test_each_block_that_is_run_elsewhere_names_an_existing_test(name: str) -> None:
    for block in blocks(PAGES[name]):
        if block.comment.startswith("run by:"):
            assert missing_tests(RUN_BY.findall(block.comment)) == []
            assert RUN_BY.search(block.comment)
        if block.comment.startswith("not run:"):
            assert NOT_RUN.fullmatch(block.comment)


@pytest.mark.parametrize("name", PAGES)
def test_commands_within_the_text_have_existing_options(name: str) -> None:
    root = get_command(app)
    for command in re.findall(r"`uploader ([^`]+)`", BLOCK.sub("", PAGES[name])):
        first, *words = command.split()
        given = {word.partition("=")[0] for word in (first, *words) if word.startswith("-")}
        if first == "serve":
            known = {flag for option in OPTIONS for flag in (option.flag, *option.short)} | {"--help"}
        else:
            found = root if first.startswith("-") else root.commands[first]  # type: ignore[attr-defined]
            known = {flag for param in found.params for flag in (*param.opts, *param.secondary_opts)} | {"--help"}
        assert given <= known, command
