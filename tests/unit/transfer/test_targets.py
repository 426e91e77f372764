"""The first contact with a server: what its announcements become, and the start of the run that is told meanwhile."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import Answer, Rule, ScriptedServer
from time_limits import PATIENCE

from uploader_cli import errors
from uploader_cli.core.capabilities import CONCATENATION, Capabilities
from uploader_cli.core.packs import LookupOffer, PackOffer
from uploader_cli.core.plan import ASSUMED, ENDLESS, Limits, LocalFile
from uploader_cli.core.sizes import ChunkSize
from uploader_cli.core.terms import Offer, Terms
from uploader_cli.settings import Settings
from uploader_cli.transfer import targets
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import RunTarget
from uploader_cli.transfer.pacer import Stop
from uploader_cli.transfer.targets import Opened, meeting, target_of

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMITS = {"maxFiles": 9, "maxFileSize": 10, "allowedTypes": ["*"], "mixedTypes": True, "relativePaths": True}
OFFERED = {
    "tus": {"endpoint": "/files/", "version": "1.0.0", "extensions": ["creation", "checksum"]},
    "packs": {"endpoint": "/packs", "maxFiles": 9, "maxBytes": 9, "maxFileSize": 9},
    "lookup": {"endpoint": "/lookup", "maxFiles": 7},
}
TUS = {
    "Tus-Resumable": "1.0.0",
    "Tus-Version": "1.0.0",
    "Tus-Extension": "creation,checksum,creation-with-upload",
    "Tus-Checksum-Algorithm": "sha1",
    "Tus-Max-Size": "99",
}
FILE = LocalFile(0, "a.mp4", "a.mp4", 5, 7)
HERE = "http://h/files/"


def meet(
    *rules: Rule, path: str = "", files: Sequence[LocalFile] = (FILE,), chunk: ChunkSize | None = None, **options: Any
) -> tuple[Terms, Opened | None, list[str]]:
    """Return what the first contact gives, and its requests; with a `path` that of a tus endpoint."""
    with ScriptedServer(*rules, Rule(Answer(404))) as server:
        where = {"tus_endpoint": server.url + path} if path else {"server": server.url}
        settings = Settings(**{"retries": 0, **where, **options})
        with closing(Api(settings, lambda _event: None, Stop())) as api, Journal(settings.state_path) as journal:
            run = journal.begin(RunTarget(server.url, "personal"), {})
            met = target_of(settings).meet(api, run, files, chunk or ChunkSize("auto"))
    return *met, [f"{request.method} {request.path}" for request in server.requests]


def terms(offer: Offer, **options: Any) -> Terms:
    return target_of(Settings(**options)).terms(offer)


class TestHealth:
    def test_offers_of_health_are_the_terms(self) -> None:
        known, opened, asked = meet(Rule(Answer(200, {"status": "OK", "limits": LIMITS, **OFFERED}), "GET /health"))
        assert (opened, asked) == (None, ["GET /health"])
        assert known.limits == Limits(9, 10, frozenset({"*"}), mixed_types=True, relative_paths=True, empty_files=True)
        assert known.tus is not None
        assert known.tus.endpoint.endswith("/files/")
        assert (known.packs, known.lookup) == (known.offer.packs, known.offer.lookup)
        assert (known.packs and known.packs.max_files, known.lookup and known.lookup.max_files) == (9, 7)
        assert (known.sessions, known.keys, known.tells_stored, known.strict, known.may_forget) == (*4 * [True], False)
        assert known.trusts_checksums

    def test_session_answer_tells_what_health_does_not(self) -> None:
        session = {"sessionId": "s", "category": "personal", **LIMITS, **OFFERED}
        known, opened, asked = meet(
            Rule(Answer(200, {"status": "OK"}), "GET /health"), Rule(Answer(200, session), "POST /api/upload/session")
        )
        assert asked == ["GET /health", "POST /api/upload/session"]
        assert opened is not None
        assert (opened.session.session_id, opened.capacity) == ("s", 1)
        assert (known.limits.max_files, known.tus is None, known.lookup is None) == (9, False, False)

    def test_server_without_offers_gets_batches_within_the_assumed_limits(self) -> None:
        session = Rule(Answer(200, {"sessionId": "s"}), "POST /api/upload/session")
        known, opened, _ = meet(Rule(Answer(200, {"status": "OK"}), "GET /health"), session)
        assert opened is not None
        assert known == Terms()
        assert (known.limits, known.offer.limits) == (ASSUMED, None)

    @pytest.mark.parametrize(("option", "value"), [("dest", "here"), ("if_exists", "fail")])
    def test_option_that_the_server_can_not_serve_opens_no_session(self, option: str, value: str) -> None:
        asked: dict[str, Any] = {option: value}
        with pytest.raises(errors.UsageError):
            meet(Rule(Answer(200, {"status": "OK"}), "GET /health"), **asked)

    def test_protocol_that_is_not_offered_is_a_usage_error(self) -> None:
        with pytest.raises(errors.UsageError, match="offers no resumable uploads"):
            terms(Offer(), server="http://h", protocol="tus")


class TestOptions:
    def test_announcement_of_an_endpoint_is_the_terms(self) -> None:
        known, opened, asked = meet(Rule(Answer(204, headers={**TUS}), "OPTIONS /files"), path="/files")
        assert (opened, asked) == (None, ["OPTIONS /files"])
        assert known.tus is not None
        assert (known.tus.announced, known.tus.creates_with_upload, known.checksum) == (True, True, "sha1")
        assert (known.limits.max_file_size, known.limits.max_files, known.limits.empty_files) == (99, ENDLESS, True)
        assert not any((known.sessions, known.keys, known.tells_stored, known.strict, known.may_forget))
        assert not known.trusts_checksums, "nobody says that it compares them"
        assert (known.packs, known.lookup) == (None, None)

    @pytest.mark.parametrize("status", [200, 401, 404])
    def test_answer_of_something_else_leaves_the_core_of_tus(self, status: int) -> None:
        known, *_ = meet(Rule(Answer(status), "OPTIONS *"), path="/files")
        assert known.tus is not None
        assert (known.tus.announced, known.tus.extensions, known.checksum) == (False, frozenset(), None)

    def test_limits_of_the_ietf_protocol_are_its_announcement(self) -> None:
        limit = {"Upload-Limit": "max-size=90, min-size=5, min-append-size=30000000, max-append-size=40000000"}
        chunk = ChunkSize("auto")
        known, *_ = meet(Rule(Answer(204, headers={**limit}), "OPTIONS *"), path="/up", chunk=chunk, protocol="ietf")
        assert known.tus is not None
        assert (known.tus.ietf, known.tus.resumes_from, known.limits.max_file_size) == (True, 5, 90)
        assert (known.may_forget, known.trusts_checksums) == (True, False)
        assert chunk.size == 30_000_000

    def test_upload_that_exists_is_asked_for_instead(self) -> None:
        """A service that creates uploads may know no OPTIONS; only the options of the user say what it can do."""
        with ScriptedServer(Rule(Answer(200, headers={"Tus-Resumable": "1.0.0", "Upload-Offset": "0"}))) as server:
            settings = Settings(upload_url=f"{server.url}/u/1", retries=0)
            file = LocalFile(0, "a", "a", 5, 7, upload_url=f"{server.url}/u/1")
            with closing(Api(settings, lambda _event: None, Stop())) as api, Journal(settings.state_path) as journal:
                target = target_of(settings)
                run = journal.begin(RunTarget(server.url, ""), {})
                known, _ = target.meet(api, run, [file], ChunkSize("auto"))
                target.reach(api, known)
        assert [f"{request.method} {request.path}" for request in server.requests] == ["HEAD /u/1"] * 2
        assert known.tus is not None
        assert not known.tus.extensions

    def test_names_that_may_not_be_taken_need_a_lookup(self) -> None:
        with pytest.raises(errors.UsageError, match="needs a lookup"):
            meet(path="/files", if_exists="fail")

    def test_checksum_that_is_not_offered_is_a_usage_error(self) -> None:
        with pytest.raises(errors.UsageError, match="sha256"):
            meet(Rule(Answer(204, headers={**TUS}), "OPTIONS *"), path="/files", checksum="sha256")

    def test_stream_needs_a_server_that_defers_lengths(self) -> None:
        stream: Any = type("Pipe", (), {"once": True, "length": None})()
        file = LocalFile(0, "-", "a", 0, 7, content=stream)
        with pytest.raises(errors.UsageError, match="unknown length"):
            meet(Rule(Answer(204, headers={**TUS}), "OPTIONS *"), path="/files", files=[file])


OFFER = Offer(
    Limits(9, 10, frozenset({"*"})), Capabilities(HERE), PackOffer("http://h/p", 9, 9, 9), LookupOffer("http://h/l", 9)
)


@pytest.mark.parametrize(
    ("options", "protocol", "packs"),
    [
        ({}, "tus", True),
        ({"pack": False}, "tus", False),
        ({"protocol": "batch"}, "batch", False),
        ({"protocol": "ietf"}, "ietf", False),
    ],
)
def test_options_choose_from_the_offer(options: dict[str, Any], protocol: str, packs: bool) -> None:
    known = terms(OFFER, server="http://h", **options)
    assert known.protocol == protocol
    assert known.falls_back is ("protocol" not in options), "a protocol that the user has chosen is kept"
    assert (known.packs is not None, known.lookup) == (packs, OFFER.lookup)
    assert known.limits.empty_files is (protocol != "batch")
    assert known.offer is OFFER, "a later run is told the offer, not the choice"


@pytest.mark.parametrize(
    ("endpoint", "extension", "options", "parts"),
    [
        (HERE, CONCATENATION, {}, True),
        (HERE, CONCATENATION, {"parts": False}, False),
        (HERE, "creation", {}, False),
        (HERE + "{path}", CONCATENATION, {}, False),
    ],
)
def test_file_is_divided_where_its_parts_have_urls_of_their_own(
    endpoint: str, extension: str, options: dict[str, bool], parts: bool
) -> None:
    offered = Offer(tus=Capabilities(endpoint, frozenset({extension})))
    assert terms(offered, tus_endpoint=endpoint, **options).parts is parts


@pytest.mark.parametrize("ietf", [False, True])
def test_server_of_the_ietf_protocol_says_itself_what_is_complete(ietf: bool) -> None:
    offered = Offer(tus=Capabilities.of_ietf(HERE, None) if ietf else Capabilities(HERE))
    known = terms(offered, tus_endpoint=HERE, empty_at_creation=True, checksum_compared=True)
    assert (known.empty_at_creation, known.may_forget, known.protocol) == (not ietf, ietf, "ietf" if ietf else "tus")
    assert not known.falls_back


@pytest.mark.parametrize("algorithm", ["crc32c", "sha256", "sha1"])
@pytest.mark.parametrize(
    ("sessions", "says_so", "announced", "compares"),
    [(True, False, False, True), (False, False, False, False), (False, True, False, True), (False, False, True, True)],
)
def test_checksum_of_an_endpoint_counts_where_a_setting_or_the_server_says_so(
    algorithm: str, sessions: bool, says_so: bool, announced: bool, compares: bool
) -> None:
    where: dict[str, Any] = {"server": "http://h"} if sessions else {"tus_endpoint": HERE}
    settings = Settings(**where, checksum_compared=says_so)
    offered = Capabilities(HERE, frozenset({"checksum"}), frozenset({algorithm}), compares_checksums=announced)
    known = target_of(settings).agreed(Offer(tus=offered), ())
    assert (known.checksum, known.trusts_checksums) == (algorithm, compares)


def test_start_of_the_run_is_announced_before_anything_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers while it is being announced, late."""
    monkeypatch.setattr(targets, "BEGUN_AFTER", 0.0)
    begins, order = threading.Event(), list[str]()

    def begin() -> None:
        begins.set()
        threading.Event().wait(0.05)
        order.append("begun")

    with meeting(begin):
        assert begins.wait(PATIENCE)
    order.append("ended")
    assert order == ["begun", "ended"]
