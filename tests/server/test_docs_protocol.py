"""The pages on the protocols: their examples are run, and their captures, numbering and codes are checked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from docs_pages import ROOT, codes, page, rows
from serving import running_server

from uploader_server.auth import issue_token

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ("protocol.md", "resumable-uploads.md", "extensions.md")
"""In the order of their examples, which share one shell."""
PAGE = "\n".join(page(name) for name in PAGES)
WIRE = ROOT / "tests" / "wire"
MARK = "===== next example"
PRELUDE = f"""
set -eu
curl() {{ command curl -w '%{{stderr}}status %{{http_code}}\\n' "$@"; }}
next() {{ echo '{MARK}'; echo '{MARK}' >&2; }}
"""
VARYING = [
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{32}\b", "ID"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME"),
    (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "TIME"),
    (r'("(?:uptime|rss|uploadSpeed|receivedBytes)": ?)[\d.]+', r"\1 0"),
]


@dataclass
class Example:
    """A block of commands, and the output that the page shows below it."""

    commands: str
    kind: str
    output: str

    @property
    def statuses(self) -> list[str]:
        """The statuses at the ends of its lines, in order."""
        return re.findall(r" # (\d{3})$", self.commands, re.MULTILINE)

    @property
    def lines(self) -> list[str]:
        """The output of the lines that read a saved answer."""
        return re.findall(r"^(?:value|grep) .* # (.+)$", self.commands, re.MULTILINE)


EXAMPLES = [
    Example(*found)
    for found in re.findall(r"^```sh\n(.*?)^```$(?:\n\n```(json|http)\n(.*?)^```$)?", PAGE, re.DOTALL | re.MULTILINE)
]


def normalised(text: str) -> str:
    """Replace what differs from run to run."""
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text)
    return text


def headers(text: str) -> set[str]:
    """Return the lines of a response's head, with names in lower case."""
    split = (line.strip().partition(": ") for line in normalised(text).splitlines())
    return {f"{name.lower() if colon else name}{colon}{value}" for name, colon, value in split if name}


def run(directory: Path, server: str, token: str) -> tuple[list[str], list[str]]:
    """Run all examples in one shell; return stdout and stderr of each."""
    script = PRELUDE + "".join(f"next\n{example.commands}" for example in EXAMPLES)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env={**os.environ, "SERVER": server, "TOKEN": token, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split(f"{MARK}\n")[1:], done.stderr.split(f"{MARK}\n")[1:]


@pytest.mark.thorough
@pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "openssl"))), reason="the examples are commands for bash, curl, openssl"
)
def test_the_examples_answer_as_shown(tmp_path: Path) -> None:
    root = tmp_path / "files"
    with running_server(packs=True, root=root, analysis_seconds=0.02, patient=False) as server:
        outputs, errors = run(tmp_path, server.url, issue_token(server.config.jwt_secret))
    assert len(outputs) == len(errors) == len(EXAMPLES)
    for example, output, error in zip(EXAMPLES, outputs, errors, strict=True):
        assert re.findall(r"^status (\d+)$", error, re.MULTILINE) == example.statuses, example.commands
        shown = normalised(output.replace(str(root), "/srv/files").replace(server.url, "http://localhost:8005"))
        if example.lines:
            assert shown.splitlines() == example.lines
        if example.kind == "json":
            assert json.loads(shown) == json.loads(normalised(example.output)), example.commands
        elif example.kind == "http":
            assert headers(example.output) <= headers(shown), example.commands


def test_each_example_is_found_and_states_what_it_answers() -> None:
    assert len(EXAMPLES) == PAGE.count("\n```sh\n") > 20
    assert sum(example.kind == "http" for example in EXAMPLES) == PAGE.count("\n```http\n")
    assert [example.commands for example in EXAMPLES[1:] if not example.statuses] == []


@pytest.mark.parametrize(
    ("name", "shown"), re.findall(r"^<!-- wire: (\S+) -->\n```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
)
def test_quoted_captures_match_the_recordings(name: str, shown: str) -> None:
    text = (WIRE / name).read_text(encoding="utf-8")
    if name.endswith(".jsonl"):
        events = [json.loads(line)["data"] for line in text.splitlines()]
        assert all(json.loads(line) in events for line in shown.splitlines())
    else:
        assert json.loads(shown) == json.loads(text)["body"]


def test_the_sections_have_the_numbers_that_code_cites() -> None:
    titles = re.findall(r"^#{2,3} (\d\S*)", PAGE, re.MULTILINE)
    quirks = [f"3.{number}" for number in range(1, 18)]
    assert titles == ["1.", "2.", "3.", *quirks, "4."]


def test_every_captured_error_code_is_on_the_page() -> None:
    captured = {code for path in WIRE.glob("*.json") for code in _codes(json.loads(path.read_text())["body"])}
    assert len(captured) > 10
    assert [code for code in captured if f"`{code}`" not in PAGE] == []


def test_error_codes_of_the_page_are_those_of_the_server() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "server_stub").rglob("*.py"))
    of_server = set(re.findall(r'\b[45]\d\d, "([A-Z_]+)"', source)) - {
        "INVALID_RULE"
    }  # docs/server.md: --fault-control
    assert len(of_server) > 50
    assert [code for code in sorted(of_server) if f"`{code}`" not in PAGE] == []
    of_page = {code for row in rows(PAGE) if re.fullmatch(r"\d{3}", row[0]) for code in codes(row[1]) if code.isupper()}
    assert [code for code in sorted(of_page) if f'"{code}"' not in source] == []


def _codes(body: Any) -> list[str]:
    if not isinstance(body, dict):
        return []
    failed = [file for file in body.get("files", ()) if "errorCode" in file]
    return [*([body["error"]] if "error" in body else []), *(file["errorCode"] for file in failed)]
