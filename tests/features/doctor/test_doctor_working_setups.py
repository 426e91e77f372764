"""Working set-ups: the report, the number of calls, and that nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
import trustme
from features.doctor.broken_setups import doctor, step
from proxy import Proxy, Sniffer, tls_front
from scripted_server import Answer, Rule, ScriptedServer
from serving import running_server
from time_limits import PATIENCE
from tus_services import Announcing, Plain

from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Verdict
from uploader_cli.features.doctor.doctor_report import as_json
from uploader_cli.settings import Layer, Source
from uploader_server.auth import issue_token

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

pytestmark = pytest.mark.usefixtures("busy_machine")


def api_calls(running: EmbeddedServer) -> list[tuple[str, str]]:
    """What the server itself counted."""
    return [(r.method, r.path) for r in running.faults.requests if r.path.startswith("/api/")]


@pytest.mark.parametrize("flavour", ["bundled", "reference"])
def test_doctor_passes_on_each_kind_of_server(flavour: str, tmp_path: Path) -> None:
    """Each kind of server is recognised, with the reported number of calls, at most 5."""
    with running_server(flavour=flavour, jwt_secret="s" * 40) as running:
        token = issue_token("s" * 40)
        report = doctor(running.url, token=token, state_dir=tmp_path / "new")
        counted = api_calls(running)
    assert {result.id: result.finding.message for result in report.results if result.verdict is Verdict.WARNING} == {}
    assert report.summary.startswith("Everything works: uploads will be live over websocket, ")
    assert (report.exit_code, report.ok, report.verdict) == (Exit.OK, True, Verdict.PASS)
    assert step(report, "health").finding.message.startswith(flavour)
    connected = step(report, "websocket").finding
    said = float(connected.message.removeprefix("connected in ").removesuffix(" ms").replace(",", ""))
    assert said == pytest.approx(connected.details["latency_ms"], abs=0.6)  # of a number that was not rounded before
    assert step(report, "token").finding.message == "accepted"
    assert report.calls == len(counted) == (5 if flavour == "bundled" else 3)
    assert {method for method, _ in counted} == {"GET", "DELETE"} | (
        {"OPTIONS", "PATCH", "POST"} if flavour == "bundled" else {"POST"}
    )
    assert list(tmp_path.iterdir()) == []  # neither the directory nor the file of the speed test


def test_doctor_with_the_token_of_the_server_passes(subtests: pytest.Subtests) -> None:
    """Over both transports too; the token itself is nowhere in the report."""
    with running_server(auth_token="the-token-for-all") as running:
        report = doctor(running.url, token="the-token-for-all", context={"new_session": True})
    assert report.summary.startswith("Everything works: uploads will be live over websocket, ")
    for way in ("websocket", "long_polling"):
        with subtests.test(way=way):
            assert "joined, first message" in step(report, way).finding.message
    assert "the-token-for-all" not in str(as_json(report))


@pytest.mark.parametrize("kind", ["bundled", "plain", "announcing"])
def test_doctor_passes_on_a_tus_endpoint(kind: str, tmp_path: Path) -> None:
    """Without the steps for sessions. Of checksums that verify no file it says so, and what shows more."""
    with running_server() as running, Plain() as plain, Announcing() as announcing:
        endpoint = {"plain": plain.url, "announcing": announcing.url}.get(kind, f"{running.url}/api/upload/files/")
        report = doctor("", tus_endpoint=endpoint, state_dir=tmp_path, context={"new_upload": True})
        deleted = running.faults.count("DELETE", "/api/upload/files/*")
    assert report.summary == "Everything works: uploads will be resumable (tus)"
    assert [result.id for result in report.results if result.verdict is Verdict.PASS] == [
        *("settings", "proxy", "dns", "tcp", "tus", "body_limit", "tus_headers", "disk")
    ]
    assert step(report, "tus").finding.message.startswith(f"{endpoint} offers ")
    assert ("`uploader smoke`" in step(report, "tus").finding.hint) == (kind == "announcing")
    assert ("stays on the server" in step(report, "tus_headers").finding.message) == (kind != "bundled")
    assert deleted == (kind == "bundled")


def test_clock_of_a_cached_answer_is_not_compared() -> None:
    health = Answer(200, {"status": "OK", "timestamp": "2026-01-31T09:30:00.000Z"}, {"Age": 3600})
    with ScriptedServer(Rule(health, "GET /health")) as cached:
        found = step(doctor(cached.url), "clock").finding
    assert (found.verdict, found.message) == (Verdict.SKIPPED, "because a cache answered instead of the server")


def test_doctor_reports_the_remaining_calls() -> None:
    with running_server(flavour="reference") as running:
        report = doctor(running.url)
    finding = step(report, "rate_limit").finding
    assert finding.message.startswith(f"{finding.details['remaining']} of 100 calls left, reset in 1")
    assert 90 <= finding.details["remaining"] < 100  # a connection that is refused under load is tried again


def test_a_new_session_is_joined_and_cancelled() -> None:
    with running_server() as running:
        report = doctor(running.url, context={"new_session": True})
        opened = str(step(report, "session").finding.details["session"])
        state = requests.get(f"{running.url}/api/upload/progress/{opened}", timeout=PATIENCE).json()["overallStatus"]
    assert report.ok
    assert state == "cancelled"
    assert "joined, first message" in step(report, "websocket").finding.message
    assert report.calls == 6


def test_doctor_joins_an_existing_session(server: EmbeddedServer) -> None:
    asked = {"category": "personal", "expectedFiles": 1}
    known = requests.post(f"{server.url}/api/upload/session", json=asked, timeout=PATIENCE).json()["sessionId"]
    found = step(doctor(server.url, context={"session": known}), "session").finding
    assert (found.verdict, found.details["state"]) == (Verdict.PASS, "pending")


def test_a_trusted_certificate_through_a_proxy(tmp_path: Path) -> None:
    """The proxy is named without its password; names and ports are looked up at the proxy."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        running_server() as running,
        tls_front(running.url, authority, "localhost") as url,
        Proxy(url.replace("localhost", "127.0.0.1"), sniffer := Sniffer()) as proxy,
    ):
        through = f"http://me:hunter2!@127.0.0.1:{proxy.port}"
        report = doctor(url, proxy=through, ca_bundle=tmp_path / "ca.pem")
    assert report.ok, report.summary
    assert f"127.0.0.1:{proxy.port}" in step(report, "proxy").finding.message
    assert str(proxy.port) in step(report, "tcp").finding.message
    assert "certificate by" in step(report, "tls").finding.message
    assert b"Proxy-Authorization: Basic" in sniffer.seen
    assert "hunter2" not in str(as_json(report))


def test_doctor_uses_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server() as running, Proxy(running.url) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        report = doctor(running.url)
    assert step(report, "proxy").finding.message.endswith("from http_proxy")
    assert report.ok


def test_an_unchecked_certificate_is_a_warning() -> None:
    with running_server() as running, tls_front(running.url, trustme.CA(), "files.example") as url:
        report = doctor(url, insecure=True)
    assert report.ok
    assert "certificates are not verified" in report.summary


def test_doctor_reports_a_withheld_token(server: EmbeddedServer) -> None:
    named = {"server": Source(Layer.WORKING_DIRECTORY, "uploader.toml: server")}
    report = doctor(server.url, token="secret-word", distrust="nobody named it", sources=named)
    assert "the token is withheld" in report.summary
    assert step(report, "token").verdict is Verdict.SKIPPED
    assert "secret-word" not in str(as_json(report))


def test_a_token_command_that_fails(server: EmbeddedServer) -> None:
    """An upload would exit 2."""
    report = doctor(server.url, token_command="exit 3")
    assert report.exit_code is Exit.USAGE
    assert "exit code 3" in report.summary
