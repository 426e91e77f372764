"""`uploader smoke` against correct and defective servers: budget, clean-up, tokens, timeouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trustme
from features.smoke.broken_servers import Broken, Call, Reply, failed, result, smoke
from proxy import Proxy, tls_front
from serving import calls_of, closed_port, running_server
from tus_services import Announcing, Plain

from uploader_cli import Settings
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Verdict
from uploader_cli.features.smoke.runner import CHECKS, OF_ENDPOINTS, run_checks
from uploader_cli.features.smoke.site import Site
from uploader_cli.features.smoke.smoke_report import check_json
from uploader_cli.settings.values import Header
from uploader_server.auth import issue_token

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.features.checks.check import Checked, CheckReport
    from uploader_server.serving import EmbeddedServer

SECRET = "a secret of this test that is long enough"
TOKEN = issue_token(SECRET)


def of(report: CheckReport, verdict: Verdict) -> set[str]:
    return {found.id for found in report.results if found.verdict is verdict}


def counted(server: EmbeddedServer) -> int:
    return sum(request.path.startswith("/api/") for request in server.faults.requests)


def test_smoke_passes_on_the_bundled_server() -> None:
    """With a token everything is removed; with a type limit and a rate limit no check is skipped."""
    with running_server(packs=True, jwt_secret=SECRET, rate_limit=1000, types=("mp4", "avi"), max_files=30) as server:
        report = smoke(server.url, token=TOKEN, strict=True)
        files = [path for path in server.root.rglob("*.*") if path.is_file() and "smoke" in path.name]
        assert counted(server) == report.calls
    assert (report.exit_code, failed(report)) == (Exit.OK, set())
    assert of(report, Verdict.PASS) == {check.id for check in CHECKS}
    assert (report.left, files) == ((), [])
    assert report.calls <= 110


@pytest.mark.thorough
def test_smoke_without_a_token_removes_what_tus_deletes() -> None:
    """The tus DELETE removes finished uploads outside of sessions; files of batches remain and are named."""
    with running_server(rate_limit=1000) as server:
        report = smoke(server.url)
        files = {path.name for path in server.root.rglob("*smoke*") if path.is_file() and path.suffix == ".mp4"}
        assert counted(server) == report.calls <= 150
    assert (report.exit_code, failed(report)) == (Exit.OK, set())
    assert [name.rpartition("-")[2] for name in files if "-tus" in name] == ["tus.mp4"]  # in a session, as uploads are
    assert len(report.left) == len(files) == 8
    assert all(thing.endswith(": no token") for thing in report.left)


def test_smoke_without_a_token_or_anonymous_uploads_uses_sessions() -> None:
    with running_server(rate_limit=1000, anonymous_tus=False) as server:
        report = smoke(server.url, ["tus-resume", "clean-up"])
    assert failed(report) == set()
    assert [thing.rpartition(": ")[2] for thing in report.left] == ["no token"]


def test_smoke_passes_on_the_reference_backend() -> None:
    """Within half of its 100 calls in 15 minutes."""
    with running_server(flavour="reference", processing_seconds=0.9) as server:
        report = smoke(server.url)
        assert counted(server) == report.calls
    assert (report.exit_code, failed(report)) == (Exit.OK, set()), report.results
    unknown = {check.id for check in CHECKS if check.id.startswith("tus-")} | {"packs", "lookup", "digest"}
    assert of(report, Verdict.NOT_OFFERED) == unknown
    assert of(report, Verdict.SKIPPED) == {"clean-up"}
    assert report.calls <= 45
    assert len(report.left) == 8
    assert all(thing.startswith("/uploads/personal/") and thing.endswith(": no token") for thing in report.left)


@pytest.mark.parametrize("most", [1, pytest.param(3, marks=pytest.mark.thorough)])
def test_a_server_with_every_limit_passes_within_the_budget(most: int) -> None:
    """Small sessions take more calls: each has to be opened, and cancelled."""
    limits = {"types": ("mp4",), "max_size": 10_000, "max_files": most, "rate_limit": 1000}
    with running_server(packs=True, jwt_secret=SECRET, **limits) as server:
        report = smoke(server.url, token=TOKEN)
        assert counted(server) == report.calls <= 150
        assert not list(server.root.rglob("*smoke*"))
    assert (report.exit_code, report.left) == (Exit.OK, ()), report.results
    assert of(report, Verdict.PASS) == {check.id for check in CHECKS} - ({"batch-several"} if most == 1 else set())


@pytest.mark.thorough
def test_smoke_with_a_token_for_all_calls() -> None:
    """With it everything passes; without it the first refusal ends the run with exit code 5."""
    with running_server(auth_token="let-me-in", rate_limit=1000) as server:
        assert failed(smoke(server.url, token="let-me-in")) == set()
        before = counted(server)
        shut_out = smoke(server.url)
        assert counted(server) - before == shut_out.calls == 1
    assert shut_out.exit_code is Exit.NOT_AUTHORISED
    assert failed(shut_out) == {"session"}
    assert "--token-file" in result(shut_out, "session").finding.hint, (
        "also where the answer's words are masked to their end"
    )
    assert of(shut_out, Verdict.PASS) == {"health"}


@pytest.mark.parametrize("budget", [1, 2, 3, 9, 12, 15, 20, 28, 33])
def test_budget_is_never_exceeded_and_includes_the_cleanup(budget: int) -> None:
    """Checks beyond the budget are not made, and the exit code says so."""
    with running_server(jwt_secret=SECRET, tus=False) as server:
        report = smoke(server.url, budget=budget, token=TOKEN, skip=["validate"])
        assert counted(server) == report.calls <= budget
        assert not list(server.root.rglob("*smoke*"))
    assert report.exit_code is Exit.RETRY_MAY_HELP
    assert failed(report) == set(), report.results
    assert "auth" in of(report, Verdict.NOT_RUN)
    assert result(report, "auth").finding.message == f"the budget of {budget} calls is used up, except for the clean-up"
    assert report.left == ()


def test_exhausted_rate_limit_ends_the_smoke_run() -> None:
    """After a 429, or without remaining calls, no check fails."""
    with running_server(rate_limit=12) as server:
        report = smoke(server.url)
        assert counted(server) == report.calls <= 12
        again = smoke(server.url)
        assert again.calls <= 1
        assert smoke(server.url, only=("session",)).exit_code == Exit.RETRY_MAY_HELP
    assert failed(report) == failed(again) == set()
    assert report.exit_code == again.exit_code == Exit.RETRY_MAY_HELP
    assert "429" in result(again, "session").finding.message
    assert of(again, Verdict.NOT_RUN) >= {"session", "batch-one", "auth"}


def test_no_server_at_the_address() -> None:
    """One check fails, the others are skipped."""
    with running_server() as server:
        url = server.url
    with closed_port(url):
        report = smoke(url)
    assert report.exit_code is Exit.NO_SERVER
    assert failed(report) == {"health"}
    assert {found.blocked_by for found in report.results[1:]} == {"health"}


def test_smoke_of_a_server_that_stops_names_what_is_left() -> None:
    """One check fails with the timeout, the others do not wait for it, and remaining files are named."""
    with running_server(jwt_secret=SECRET) as server:
        site = Site(Settings(server=server.url, token=TOKEN))

        def tell(result: Checked) -> None:
            if result.id == "batch-one":
                server.stop()

        report = run_checks(site, CHECKS, tell=tell)
    assert report.exit_code is Exit.RETRY_MAY_HELP
    assert failed(report) == {"stored-file"}
    after = report.results[[found.id for found in report.results].index("stored-file") + 1 :]
    assert {(found.verdict, found.blocked_by, found.calls) for found in after} == {(Verdict.SKIPPED, "stored-file", 0)}
    assert [thing.rpartition(": ")[2] for thing in report.left] == ["the server no longer answers"]


def test_smoke_of_a_web_site_is_no_upload_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A web site that answers 200 to everything is not an upload server."""
    page = Broken(set(), asked=lambda _: Reply(200, {"content-type": "text/html"}, b"<h1>Welcome</h1>"))
    with page.running(monkeypatch) as server:
        report = smoke(server.url, patience=2.0)
    assert report.exit_code is Exit.NO_SERVER
    assert {"health", "session"} <= failed(report)


def test_smoke_of_some_checks_creates_what_they_need(server: EmbeddedServer) -> None:
    """The files that they need are created and removed."""
    report = smoke(server.url, ["tus-resume", "auth"])
    assert [found.id for found in report.results] == ["tus-resume", "auth"]
    assert of(report, Verdict.PASS) == {"tus-resume", "auth"}


def test_chosen_check_fails_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check that it depends on, it fails itself."""

    def no_patch(call: Call) -> Reply | None:
        return Reply(500, {}) if call.method == "PATCH" else None

    with Broken(set(), asked=no_patch).running(monkeypatch) as server:
        alone = smoke(server.url, ["tus-resume"])
        both = smoke(server.url, ["tus-core", "tus-resume"])
    assert failed(alone) == {"tus-resume"}
    assert (failed(both), result(both, "tus-resume").blocked_by) == ({"tus-core"}, "tus-core")


def test_cleanup_names_what_it_could_not_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed DELETE fails the clean-up."""

    def said(call: Call, reply: Reply) -> None:
        if call.method == "DELETE" and reply.status == 200:
            reply.say({"error": "DISK", "message": "no"}, 500)

    with Broken(set(), {"jwt_secret": SECRET}, said=said).running(monkeypatch) as server:
        report = smoke(server.url, ["batch-one", "clean-up"], token=TOKEN)
    assert failed(report) == {"clean-up"}
    assert "-one.mp4 (file " in report.left[0]
    assert report.left[0].endswith("): 500 DISK")


def test_deleted_files_must_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A status 200 without a valid body is no success."""

    def asked(call: Call) -> Reply | None:
        return Reply(200, {}) if call.method == "DELETE" else None

    with Broken(set(), {"jwt_secret": SECRET}, asked=asked).running(monkeypatch) as server:
        report = smoke(server.url, ["batch-one", "clean-up"], token=TOKEN)
    assert result(report, "clean-up").verdict is Verdict.FAIL


def test_smoke_of_a_server_without_socket_io() -> None:
    """Missing parts are neither passed nor failed, and all other checks pass."""
    with running_server(realtime="off") as server:
        report = smoke(server.url)
    live = {"websocket", "long-polling", "events", "polling", "join-late", "reconnect"}
    assert (report.exit_code, failed(report)) == (Exit.OK, set())
    off = {"limit-type", "rate-limit", "packs", "lookup", "digest", "tus-parts-in-place"}
    assert of(report, Verdict.NOT_OFFERED) == {*live, *off}


def test_warning_fails_the_run_only_with_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """More calls left than the limit: a warning, and a failure only with --strict."""

    def said(_: Call, reply: Reply) -> None:
        if "x-ratelimit-limit" in reply.headers:
            reply.headers["x-ratelimit-limit"] = "5"

    with Broken(set(), {"rate_limit": 1000}, said=said).running(monkeypatch) as server:
        mild, strict = (smoke(server.url, ["rate-limit"], strict=strict) for strict in (False, True))
    assert result(mild, "rate-limit").verdict is result(strict, "rate-limit").verdict is Verdict.WARNING
    assert (mild.exit_code, strict.exit_code) == (Exit.OK, Exit.FAILED_FOR_GOOD)


def test_smoke_sends_no_token_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Location on another host is followed without token and headers."""
    seen: list[Call] = []
    elsewhere = ""

    def said(call: Call, reply: Reply) -> None:
        if call.headers["host"] in elsewhere:
            seen.append(call)
        elif call.method == "POST" and "location" in reply.headers:
            reply.headers["location"] = f"{elsewhere}{reply.headers['location']}"

    with Broken(set(), said=said).running(monkeypatch) as server, running_server() as other:
        elsewhere = other.url
        smoke(server.url, ["tus-core"], token=TOKEN, header=(Header("X-Api-Key", "hidden"),))
    assert seen
    assert not [call for call in seen if {"authorization", "x-api-key"} & set(call.headers)]


def test_smoke_report_masks_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the server repeats it."""

    def said(call: Call, reply: Reply) -> None:
        if call.path == "/health":
            reply.say({"status": call.headers["authorization"]})

    with Broken(set(), said=said).running(monkeypatch) as server:
        report = smoke(server.url, ["health"], token=TOKEN)
    assert failed(report) == {"health"}
    assert TOKEN not in str(report)


@pytest.mark.thorough
def test_smoke_over_tls(tmp_path: Path) -> None:
    """With the authority's certificate all checks pass; without it nothing is sent."""
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with running_server() as server, tls_front(server.url, authority) as url:
        assert failed(smoke(url, ca_bundle=bundle)) == set()
        before = len(calls_of(server))
        report = smoke(url)
        assert len(calls_of(server)) == before
    assert (report.exit_code, failed(report)) == (Exit.NO_SERVER, {"health"})
    assert "--ca-bundle" in result(report, "health").finding.hint


def test_smoke_with_an_authorization_header() -> None:
    """It is used for the clean-up; calls without it can't be made and are skipped."""
    with running_server(jwt_secret=SECRET) as server:
        report = smoke(server.url, skip=["tus-*"], header=(Header("authorization", f"Bearer {TOKEN}"),))
        assert not list(server.root.rglob("*smoke*"))
    assert (report.exit_code, report.left) == (Exit.OK, ())
    assert "auth" in of(report, Verdict.SKIPPED)


@pytest.mark.thorough
def test_smoke_through_a_proxy() -> None:
    """Calls, live connections, stalled and aborted bodies all use the proxy."""
    with running_server(allow_hosts=("files.invalid",)) as server, Proxy(server.url) as proxy:
        report = smoke("http://files.invalid", proxy=proxy.url)
    assert (report.exit_code, failed(report)) == (Exit.OK, set()), report.results
    assert result(report, "websocket").verdict is Verdict.PASS


def test_smoke_of_a_tus_endpoint_needs_no_sessions() -> None:
    """The bundled server passes every check, and all files are removed."""
    with running_server() as server:
        report = smoke("", tus_endpoint=f"{server.url}/api/upload/files/", strict=True)
        assert counted(server) == report.calls
        assert not list(server.root.rglob("*smoke*"))
    assert (report.exit_code, report.left) == (Exit.OK, ()), report.results
    assert of(report, Verdict.PASS) == {check.id for check in OF_ENDPOINTS}


def test_smoke_of_a_plain_tus_server_lists_what_it_cannot_delete() -> None:
    with Plain() as plain:
        report = smoke("", tus_endpoint=plain.url)
    assert report.exit_code is Exit.OK, failed(report)
    assert of(report, Verdict.PASS) == {"tus-core", "tus-version", "tus-resume", "body-limit"}
    assert of(report, Verdict.SKIPPED) == {"clean-up"}
    assert len(report.left) == len(plain.uploads) == 3
    assert all(thing.endswith("the server has no termination") for thing in report.left)


@pytest.mark.parametrize("ignores", [False, True], ids=["compares", "ignores"])
def test_smoke_of_a_tus_endpoint_shows_whether_it_compares_checksums(ignores: bool) -> None:
    with Announcing(ignores=ignores) as service:
        report = smoke("", ["tus-checksum*"], tus_endpoint=service.url)
        assert len(service.wrong) == 1
    assert (failed(report), report.exit_code) == (
        ({"tus-checksum-mismatch"}, Exit.INTEGRITY) if ignores else (set(), Exit.OK)
    ), report.results
    found = result(report, "tus-checksum-mismatch")
    assert str(check_json(found)["means"]).startswith("checksums verify nothing") == ignores


def test_cut_request_that_the_server_ends_late_is_awaited() -> None:
    with Plain(late=True) as plain:
        report = smoke("", ["tus-core", "tus-resume"], tus_endpoint=plain.url)
    assert failed(report) == set()


@pytest.mark.parametrize("where", ["wrong path", "tus server as --server"])
def test_smoke_of_another_kind_of_server_exits_6(where: str, server: EmbeddedServer) -> None:
    with Plain() as plain:
        if where == "wrong path":
            report = smoke("", tus_endpoint=f"{server.url}/files/")
        else:
            report = smoke(plain.url.removesuffix("/files/"))
            assert "--tus-endpoint" in result(report, "health").finding.hint
    assert report.exit_code is Exit.NO_SERVER
    assert len(failed(report)) == 1
