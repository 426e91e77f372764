"""Runs the source of a client in all situations of a protocol, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_cli.features.checks.check import Verdict
from uploader_cli.features.tester.bench import Bench
from uploader_cli.features.tester.judge import PROTOCOLS

if TYPE_CHECKING:
    from pathlib import Path


def verdicts(protocol: str, source: str) -> dict[str, Verdict]:
    """Return the verdicts on a client with a function `main(URL, FILE)` that returns its exit code."""
    client: dict[str, Any] = {"__name__": "client"}
    exec(source, client)
    kind, situations = PROTOCOLS[protocol]
    bench = Bench(kind, situations)
    try:
        results = [bench.result(one.check, client["main"](bench.url(one.check), bench.file)) for one in situations]
    finally:
        bench.close()
    return {result.id: result.verdict for result in results}


def failed_by(protocol: str, client: Path, before: str, after: str) -> list[str]:
    """Return the situations in which a client is wrong once one text of its source is replaced by another."""
    source = client.read_text(encoding="utf-8")
    assert source.count(before) == 1
    found = verdicts(protocol, source.replace(before, after))
    return [name for name, verdict in found.items() if verdict not in (Verdict.PASS, Verdict.NOT_OFFERED)]
