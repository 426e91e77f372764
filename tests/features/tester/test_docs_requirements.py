"""docs/tester/requirements.md has a row for each requirement of the draft, and is what the script makes of them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from docs_pages import ROOT

from uploader_cli.features.smoke.runner import ON_REQUEST
from uploader_cli.features.tester.judge import PROTOCOLS

MADE = runpy.run_path(str(ROOT / "docs/tester/requirements.py"))
DRAFT = (Path(__file__).parent / "draft_keywords.txt").read_text(encoding="utf-8")
"""The keywords of the draft's text of 1 July 2026, a line for each section with some."""


def test_each_keyword_of_the_draft_has_a_row_in_its_place() -> None:
    lines = [line.partition(": ") for line in DRAFT.splitlines()]
    keywords = [
        f"{section}/{keyword}/{number}"
        for section, _, rest in lines
        for number, keyword in enumerate(rest.split(", "), 1)
    ]
    assert [one.id for one in MADE["requirements"]()] == keywords


def test_each_row_has_a_check_or_a_reason() -> None:
    tested = {name for one in PROTOCOLS["ietf"][1] for name in one.tests}
    rows = MADE["requirements"]()
    assert tested <= {one.id for one in rows if "client" in one.binds}
    assert [one.id for one in rows if "server" not in one.binds and bool(one.reason) == (one.id in tested)] == []
    assert [one.id for one in rows if "server" in one.binds and one.reason in ("", MADE["UNTESTED"])] == []


def test_each_check_of_servers_exists_and_is_on_the_page() -> None:
    reasons = [one.reason for one in MADE["requirements"]() if "server" in one.binds]
    named = {name for reason in reasons for name in re.findall("`(ietf-.*?)`", reason)}
    every = {check.id for check in ON_REQUEST}
    assert named <= every
    assert every <= {*re.findall("`(ietf-.*?)`", MADE["page"]().partition("## For servers")[2])}


def test_page_is_current() -> None:
    """`python docs/tester/requirements.py` updates it."""
    assert MADE["PAGE"].read_text(encoding="utf-8") == MADE["page"]()
