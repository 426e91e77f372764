"""docs/server.md names every fault, metric and field of the log."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import requests
from docs_pages import codes, page, rows, section

from uploader_server.__main__ import configured, parser
from uploader_server.serving import EmbeddedServer
from uploader_server.simulation.table import FAULTS

if TYPE_CHECKING:
    from pathlib import Path

PAGE = page("server.md")


def test_every_kind_of_fault_is_on_the_page() -> None:
    named = {code for row in rows(section(PAGE, "## Faults on demand")) for code in codes(row[0])}
    assert FAULTS.keys() <= named


@pytest.mark.feature("server/metrics")
def test_page_lists_exactly_the_metrics() -> None:
    with EmbeddedServer() as server:
        text = server.app.parts["metrics"].text().decode()
    families = re.findall(r"^# TYPE (uploader_\S+) ", text, re.MULTILINE)
    there = {name for name in families if not name.endswith("_created")}
    table = rows(section(PAGE, "## Metrics and logs"))
    documented = {codes(row[0])[0]: set(codes(row[1])) for row in table if "uploader_" in row[0]}
    assert set(documented) == there
    for metric in server.app.parts["metrics"].registry.collect():
        for sample in metric.samples:
            if metric.name in documented:
                assert set(sample.labels) <= documented[metric.name] | {"le"}


def test_every_field_of_the_json_log_is_on_the_page(tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ["--access-log", str(log), "--access-log-format", "json"]
    with EmbeddedServer(configured(vars(parser().parse_args(words)))) as server:
        requests.get(f"{server.url}/health", timeout=30)
    table = rows(section(PAGE, "## Metrics and logs"))
    documented = [codes(row[0])[0] for row in table if "uploader_" not in row[0]]
    assert documented == list(json.loads(log.read_text()))
