"""`uploader smoke` against real servers, with the reference backend at its real speed.

`tests/features/smoke` has the short form, with a faster reference backend.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from command import uploader
from junit_rules import check_junit
from serving import server_process

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.acceptance


def test_two_smoke_runs_fit_into_the_reference_rate_limit(tmp_path: Path) -> None:
    """100 calls in 15 minutes suffice for two runs; a third run reports the limit."""
    with server_process("--as", "reference") as server:
        verdicts = []
        for number in range(3):
            report = f"smoke-{number}.xml"
            done = uploader("smoke", "-s", server.url, "--json", "--junit", report, home=tmp_path)
            assert check_junit((tmp_path / report).read_text())[0].get("failures") == "0"
            verdicts.append((done.code, json.loads(done.out.splitlines()[-1])))
    assert [code for code, _ in verdicts] == [0, 0, 3]
    assert sum(verdict["calls"] for _, verdict in verdicts) <= 100
    assert verdicts[2][1]["counts"]["fail"] == verdicts[2][1]["counts"]["error"] == 0


@pytest.mark.feature("demo")
def test_smoke_run_leaves_nothing_on_the_bundled_server(tmp_path: Path) -> None:
    """With a token every file is deleted afterwards, and every tus extension is checked."""
    secret = tmp_path / "secret"
    secret.write_text("a secret of this test that is long enough")
    with server_process("--jwt-secret-file", str(secret), "--rate-limit", "1000", packs=True) as server:
        token = uploader("serve", "--jwt-secret-file", secret, "--print-token", home=tmp_path).out.strip()
        done = uploader("smoke", "-s", server.url, "--json", "--strict", home=tmp_path, UPLOADER_TOKEN=token)
        assert not list(server.root.rglob("*smoke*"))
    *checks, verdict = map(json.loads, done.out.splitlines())
    assert (done.code, verdict["left"]) == (0, [])
    assert [check["id"] for check in checks if check["verdict"] == "not_offered"] == ["limit-type"], (
        "it allows any type"
    )
