"""The checks `ietf-…` of `uploader smoke` pass on the bundled server, and leave nothing there."""

from __future__ import annotations

import pytest
from features.smoke.broken_servers import failed, smoke
from ietf_service import IetfService
from serving import running_server

from uploader_cli.features.checks.check import Verdict
from uploader_cli.features.smoke.runner import ON_REQUEST
from uploader_server.auth import issue_token

SECRET = "a secret of this test that is long enough"
GROUP = ["ietf-*", "clean-up"]
ENDPOINT = "/api/upload/files/"
ALL = {check.id for check in ON_REQUEST}
NOT_OFFERED = {
    *(check for check in ALL if "-104" in check),
    *("ietf-100", "ietf-cut-creation", "ietf-upgrade"),  # these need 104, too, which ASGI does not have
    *("ietf-max-append-size", "ietf-min-append-size", "ietf-coding"),
}


@pytest.mark.parametrize("where", ["a session", "an endpoint"])
def test_bundled_server_passes(where: str) -> None:
    """And everything is deleted at the end."""
    with running_server(jwt_secret=SECRET) as server:
        of_session = where == "a session"
        settings = {"token": issue_token(SECRET)} if of_session else {"tus_endpoint": server.url + ENDPOINT}
        report = smoke(server.url if of_session else "", GROUP, strict=True, **settings)
        assert not list(server.root.rglob("*smoke*"))
    assert (report.exit_code, failed(report), report.left) == (0, set(), ()), report.results
    passed = {found.id for found in report.results if found.verdict is Verdict.PASS}
    assert passed == {*ALL, "clean-up"} - NOT_OFFERED
    assert report.calls <= 130
    assert report.notes[0].startswith("The server answers interop versions 6, 7, 8, 9 (draft -04 and -05, ")


def test_group_is_not_offered_without_upload_limit_and_not_run_unless_named() -> None:
    with running_server(tus=False) as server:
        report = smoke(server.url, GROUP)
        assert {found.verdict for found in report.results if found.id in ALL} == {Verdict.NOT_OFFERED}
        assert not ALL & {found.id for found in smoke(server.url, ["*"], ["batch*", "events"]).results}


def test_checks_of_tus_are_not_offered_by_a_server_of_this_protocol_alone() -> None:
    with IetfService() as other:
        report = smoke("", ["tus-*"], tus_endpoint=other.url)
        assert {found.verdict for found in report.results} == {Verdict.NOT_OFFERED}
