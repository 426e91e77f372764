"""The workflows of GitHub: what they use is pinned, what they call exists, and a tag gets the right notes and pages."""

from __future__ import annotations

import re
import runpy
from typing import Any

import pytest
import yaml
from docs_pages import ROOT

from uploader_cli import __version__

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / ".github/workflows").glob("*.yml")}
PAGES: dict[str, dict[str, Any]] = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
SESSIONS = set(
    re.findall(r"^@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
)
CHANGELOG = "# Changelog\n\n## 1.2.0rc1 (2026-01-02)\n\n- A change.\n\n## 1.1.0\n\n- An older one.\n"


@pytest.mark.parametrize("name", TEXTS)
def test_actions_are_pinned_by_hash_beside_their_version(name: str) -> None:
    used = re.findall(r"uses: (.*)", TEXTS[name])
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("name", PAGES)
def test_each_job_has_a_time_limit_and_calls_sessions_that_exist(name: str) -> None:
    for job in PAGES[name]["jobs"].values():
        assert job["timeout-minutes"] <= 180
        rows = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
        commands = [step["run"] for step in job["steps"] if "run" in step] + [row.get("run", "") for row in rows]
        called = re.findall(r"nox -s ((?:\w+ ?)+)", "\n".join(commands))
        named = {word for words in called for word in words.split()} | {row.get("session", "test") for row in rows}
        assert named <= SESSIONS


def test_notes_of_a_tag_are_its_section_of_the_changelog() -> None:
    notes = runpy.run_path(str(ROOT / "packaging/notes.py"))["notes"]
    assert notes("v1.2.0rc1", '__version__ = "1.2.0rc1"\n', CHANGELOG) == "- A change.\n"
    with pytest.raises(ValueError, match=r"the tag is v1\.2\.0, but the version .* is 1\.2\.0rc1"):
        notes("v1.2.0", '__version__ = "1.2.0rc1"\n', CHANGELOG)
    with pytest.raises(ValueError, match=r"no section for 1\.2"):
        notes("v1.2", '__version__ = "1.2"\n', CHANGELOG)


def test_changelog_and_pages_are_those_of_the_version() -> None:
    """Between two versions the newest section of the changelog is "Unreleased"."""
    (newest, *_) = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest == "Unreleased" or re.fullmatch(re.escape(__version__) + r" \(\d{4}-\d\d-\d\d\)", newest)
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
    named = re.compile(r"(?:for version|`uploader`|uploader-cli==) ?(\d+\.\d+\.\w+)")
    assert {name: set(found) for name in texts if (found := named.findall(texts[name]))} == {
        "ready.md": {__version__},
    }
