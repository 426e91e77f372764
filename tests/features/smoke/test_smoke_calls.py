"""The requests of checks, which `requests` makes: what they carry, which are counted, and what ends a check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import responses

from uploader_cli import errors
from uploader_cli.features.checks.check import OutOfCalls
from uploader_cli.features.smoke.site import Site
from uploader_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER, OTHER = "http://server.test:8005", "http://other.test"
COUNTED = "/api/upload/progress/s"


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site(Settings(server=SERVER, token="sesame"), budget=5)
    yield made
    made.close()


def sent(wire: responses.RequestsMock, number: int = -1) -> Any:
    return wire.calls[number].request.headers


def test_secret_of_sessions_goes_with_what_changes_them(site: Site, wire: responses.RequestsMock) -> None:
    wire.post(f"{SERVER}/api/upload/session", json={})
    wire.get(SERVER + COUNTED, json={})
    site.call("POST", "/api/upload/session", json={"category": "personal"})
    assert sent(wire)["X-Session-Secret"] == site.secret["X-Session-Secret"]
    site.call("GET", COUNTED)
    assert "X-Session-Secret" not in sent(wire)
    assert sent(wire)["Authorization"] == "Bearer sesame"


def test_another_host_gets_neither_token_nor_secret(site: Site, wire: responses.RequestsMock) -> None:
    wire.post(f"{OTHER}/files", status=201)
    site.call("POST", f"{OTHER}/files")
    assert not {"Authorization", "X-Session-Secret", "X-Request-ID"} & set(sent(wire))


def test_redirect_is_an_answer(site: Site, wire: responses.RequestsMock) -> None:
    wire.get(SERVER + COUNTED, status=302, headers={"Location": f"{OTHER}/steal"})
    assert site.call("GET", COUNTED).status == 302
    assert len(wire.calls) == 1


def test_cookie_of_a_load_balancer_is_sent_again(site: Site, wire: responses.RequestsMock) -> None:
    wire.get(SERVER + COUNTED, json={}, headers={"Set-Cookie": "node=a; Path=/"})
    site.call("GET", COUNTED)
    site.call("GET", COUNTED)
    assert (sent(wire, 0).get("Cookie"), sent(wire, 1).get("Cookie")) == (None, "node=a")


@pytest.mark.parametrize(
    ("status", "kind"), [(401, errors.Unauthorized), (403, errors.Unauthorized), (502, errors.ServerFault)]
)
def test_refusal_of_our_token_and_an_outage_end_a_check(
    site: Site, wire: responses.RequestsMock, status: int, kind: type[errors.AnswerError]
) -> None:
    wire.get(SERVER + COUNTED, status=status)
    with pytest.raises(kind):
        site.call("GET", COUNTED)


@pytest.mark.parametrize("how", [{"token": None}, {"token": "wrong"}, {"may_refuse": True}])
def test_expected_refusal_is_an_answer(site: Site, wire: responses.RequestsMock, how: dict[str, Any]) -> None:
    wire.get(SERVER + COUNTED, status=403)
    assert site.call("GET", COUNTED, **how).status == 403


def test_answer_of_tus_is_not_that_of_an_upload_server(site: Site, wire: responses.RequestsMock) -> None:
    wire.get(SERVER + COUNTED, status=404, headers={"Tus-Resumable": "1.0.0"})
    with pytest.raises(errors.NotAnUploadServer):
        site.call("GET", COUNTED)


def test_429_ends_the_counted_calls_only(site: Site, wire: responses.RequestsMock) -> None:
    wire.get(SERVER + COUNTED, status=429, headers={"Retry-After": "60"})
    wire.get(f"{SERVER}/health", json={})
    with pytest.raises(errors.RateLimited):
        site.call("GET", COUNTED)
    with pytest.raises(OutOfCalls, match="again in 60 s"):
        site.call("GET", COUNTED)
    assert site.call("GET", "/health").ok


def test_calls_end_where_the_server_counts_none_left(site: Site, wire: responses.RequestsMock) -> None:
    wire.get(SERVER + COUNTED, json={}, headers={"X-RateLimit-Remaining": "1"})
    site.call("GET", COUNTED)
    assert site.remaining == 1
    with pytest.raises(OutOfCalls):
        site.call("GET", COUNTED, leaves=1)  # nothing would be left to delete what it creates
    site.call("GET", COUNTED)
    assert site.calls == 2


def test_budget_ends_the_calls(site: Site, wire: responses.RequestsMock) -> None:
    wire.get(SERVER + COUNTED, json={})
    for _ in range(site.budget):
        site.call("GET", COUNTED)
    with pytest.raises(OutOfCalls, match="budget of 5"):
        site.call("GET", COUNTED)
