"""docs/server.md: each command on it is run, and its tables name everything that there is."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import requests
from pages import codes, page, rows, section

from uploader_cli.__main__ import main
from uploader_server.__main__ import configured, parser
from uploader_server.faults.table import markdown
from uploader_server.serving import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path

PAGE = page("server.md")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
ADDRESS = "127.0.0.1:8005"
SHELL = re.compile(r"[|>]")


class Terminal:
    """Runs lines as they are typed. A server of the page runs in this process, on a free port, until the next one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running = ExitStack()
        self._server: EmbeddedServer | None = None

    def type(self, line: str) -> int:
        """The exit code."""
        if self._server is not None:
            line = line.replace(ADDRESS, self._server.url.removeprefix("http://"))
        command, *words = shlex.split(line, comments=True)
        if SHELL.search(line.partition("#")[0]):
            return self._in_a_shell(line)
        if command == "curl":
            return 0 if requests.get(words[-1], timeout=30).ok else 22
        if command == "uploader" and words[0] == "serve":
            return self._serve(words[1:])
        return main(words) if command == "uploader" else self._in_a_shell(line)

    def close(self) -> None:
        self._running.close()

    def _serve(self, words: list[str]) -> int:
        self.close()
        config = configured(parser().parse_args(words))
        self._server = self._running.enter_context(EmbeddedServer(config))
        return 0

    def _in_a_shell(self, line: str) -> int:
        ours = f'uploader() {{ {shlex.quote(sys.executable)} -m uploader_cli "$@"; }}\n{line}'
        return subprocess.run(["bash", "-o", "pipefail", "-c", ours], cwd=self._directory, check=False).returncode


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_the_commands_of_the_page_work(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand there, in their order; where another exit code than 0 is right, the page says which."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("UPLOADER_")]:
        monkeypatch.delenv(name)
    (tmp_path / "holiday.mp4").write_bytes(b"moving pictures")
    terminal = Terminal(tmp_path)
    try:
        for line in block.splitlines():
            said = re.search(r"# exit code (\d+)$", line)
            assert terminal.type(line) == (int(said[1]) if said else 0), line
    finally:
        terminal.close()


def test_the_page_has_commands() -> None:
    """In blocks that are found as such."""
    assert len(BLOCKS) == PAGE.count("\n```sh\n") > 5


def test_every_option_is_on_the_page() -> None:
    options = {flag for action in parser()._actions for flag in action.option_strings if flag.startswith("--")}
    on_the_page = set(re.findall(r"--[a-z][a-z-]*", PAGE))
    assert options - {"--help", "--verbose"} <= on_the_page
    assert on_the_page - options <= {"--server", "--token-file", "--retries", "--log-file"}


def test_the_tables_of_faults_are_those_of_the_server() -> None:
    """They are printed by `uploader_server.faults.table.markdown()`."""
    assert markdown() in PAGE


def test_page_lists_exactly_the_metrics() -> None:
    with EmbeddedServer() as server:
        text = server.app.state.metrics.text().decode()
    families = re.findall(r"^# TYPE (uploader_\S+) ", text, re.MULTILINE)
    there = {name for name in families if not name.endswith("_created")}
    table = rows(section(PAGE, "## What it tells"))
    told = {codes(row[0])[0]: set(codes(row[1])) for row in table if "uploader_" in row[0]}
    assert set(told) == there
    for metric in server.app.state.metrics.registry.collect():
        for sample in metric.samples:
            if metric.name in told:
                assert set(sample.labels) <= told[metric.name] | {"le"}


def test_every_field_of_the_json_log_is_on_the_page(tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ["--access-log", str(log), "--access-log-format", "json"]
    with EmbeddedServer(configured(parser().parse_args(words))) as server:
        requests.get(f"{server.url}/health", timeout=30)
    table = rows(section(PAGE, "## What it tells"))
    told = [codes(row[0])[0] for row in table if "uploader_" not in row[0]]
    assert told == list(json.loads(log.read_text()))
