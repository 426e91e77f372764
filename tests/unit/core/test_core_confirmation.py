"""When an upload is confirmed: the upload_state on an offset, and what an answer says of the request that it ends."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.core.confirmation import (
    Ending,
    Reading,
    UploadState,
    ending_of,
    read_state,
    reading_of,
    refuses,
    upload_state,
    verified_by,
)

OFFSETS = st.integers(0, 20)
ENDINGS = st.sampled_from(Ending)


@pytest.mark.parametrize(
    ("offset", "length", "sent", "ending", "foreign", "bundled"),
    [
        (5, 10, 10, Ending.NONE, UploadState.OPEN, UploadState.OPEN),
        (5, 10, 10, Ending.ERROR, UploadState.OPEN, UploadState.OPEN),
        (10, None, 10, Ending.NONE, UploadState.OPEN, UploadState.OPEN),
        (10, 10, 10, Ending.NONE, UploadState.UNKNOWN, UploadState.CONFIRMED),
        (10, 10, 10, Ending.LOST, UploadState.UNKNOWN, UploadState.CONFIRMED),
        (10, 10, 10, Ending.GATEWAY, UploadState.UNKNOWN, UploadState.CONFIRMED),
        (10, 10, 10, Ending.ERROR, UploadState.FAILED, UploadState.CONFIRMED),
        (10, 10, 9, Ending.NONE, UploadState.INTRUDED, UploadState.INTRUDED),
        (11, 10, 10, Ending.NONE, UploadState.INTRUDED, UploadState.INTRUDED),
        (11, 10, 11, Ending.NONE, UploadState.INTRUDED, UploadState.INTRUDED),
        (0, 0, 0, Ending.NONE, UploadState.OPEN, UploadState.CONFIRMED),
        (0, 0, 0, Ending.LOST, UploadState.UNKNOWN, UploadState.CONFIRMED),
        (0, 0, 0, Ending.GATEWAY, UploadState.UNKNOWN, UploadState.CONFIRMED),
        (0, 0, 0, Ending.ERROR, UploadState.FAILED, UploadState.CONFIRMED),
    ],
)
def test_verdict_on_an_offset(
    offset: int, length: int | None, sent: int, ending: Ending, foreign: UploadState, bundled: UploadState
) -> None:
    assert upload_state(offset, length, sent, ending, tells_stored=False) is foreign
    assert upload_state(offset, length, sent, ending, tells_stored=True) is bundled


@given(
    offset=OFFSETS,
    length=st.none() | OFFSETS,
    sent=OFFSETS,
    ending=ENDINGS,
    how=st.fixed_dictionaries({name: st.booleans() for name in ("tells_stored", "declared", "accepted", "part")}),
)
def test_confirmed_is_only_what_was_sent_to_the_end(
    offset: int, length: int | None, sent: int, ending: Ending, how: dict[str, bool]
) -> None:
    """At a foreign server only by a success; a part may be confirmed, because the request that joins it decides."""
    if upload_state(offset, length, sent, ending, **how) is UploadState.CONFIRMED:
        assert length is not None
        assert offset == length <= sent
        assert how["tells_stored"] or how["accepted"] or (how["part"] and ending in (Ending.NONE, Ending.LOST))


@pytest.mark.parametrize("status", [200, 206, 301, 400, 401, 403, 404, 405, 410, 416, 500, 501])
@pytest.mark.parametrize(("length", "total"), [(10, None), (1, 10), (9, None), (1, 9), (None, None)])
@pytest.mark.parametrize("reason", ["", "ERR_INCOMPLETE_UPLOAD: cannot stream non-finished upload\n"])
def test_reading_of_an_answer(status: int, length: int | None, total: int | None, reason: str) -> None:
    whole, ranged = length == 10 and total is None, total == 10
    if (status == 200 and whole) or (status == 206 and ranged):
        expected = Reading.STORED
    elif status == 400 and reason:
        expected = Reading.INCOMPLETE
    else:
        expected = Reading.MISSING if status in (404, 410, 500, 501) else Reading.SILENT
    assert reading_of(status, 10, length=length, total=total, reason=reason) is expected


@pytest.mark.parametrize("tells", [False, True])
@pytest.mark.parametrize("readings", [*product(Reading), *product(Reading, repeat=2)])
def test_state_after_readings(readings: tuple[Reading, ...], tells: bool) -> None:
    """Only a second MISSING of a server that tells it decides; every other reading decides at once."""
    state = read_state(readings, tells=tells)
    by_last = {Reading.STORED: UploadState.CONFIRMED, Reading.INCOMPLETE: UploadState.FAILED}
    expected = by_last.get(readings[-1], UploadState.UNKNOWN)
    if readings[-1] is Reading.MISSING and tells:
        assert state is (UploadState.FAILED if len(readings) == 2 else None)
    else:
        assert state is expected


@pytest.mark.parametrize(
    ("status", "by_server", "before", "ending"),
    [
        (None, True, Ending.ERROR, Ending.LOST),
        (500, True, Ending.LOST, Ending.ERROR),
        (500, False, Ending.NONE, Ending.ERROR),
        (503, True, Ending.NONE, Ending.ERROR),
        (503, False, Ending.NONE, Ending.GATEWAY),
        (524, False, Ending.ERROR, Ending.GATEWAY),
        (409, True, Ending.NONE, Ending.ERROR),
        (409, True, Ending.LOST, Ending.GATEWAY),
        (409, True, Ending.GATEWAY, Ending.GATEWAY),
        (423, True, Ending.NONE, Ending.ERROR),
        (423, True, Ending.LOST, Ending.LOST),
        (423, True, Ending.GATEWAY, Ending.GATEWAY),
        (403, False, Ending.ERROR, Ending.ERROR),
    ],
)
def test_ending_of_a_request(status: int | None, by_server: bool, before: Ending, ending: Ending) -> None:
    """A lock leaves what an earlier request, whose answer was lost, may have completed; a conflict makes it unknown."""
    assert ending_of(status, before, by_server=by_server) is ending


def test_refusals_are_those_of_the_file_by_the_server() -> None:
    assert [status for status in range(100, 600) if refuses(status, by_server=True)] == [
        status for status in range(400, 500) if status not in (401, 404, 408, 409, 410, 423, 425, 429, 460)
    ]
    assert not any(refuses(status, by_server=False) for status in range(100, 600))


@pytest.mark.parametrize(
    ("algorithm", "in_one_run", "resumed"),
    [("crc32c", "crc32c", "crc32c"), ("sha256", "sha256", "crc32c"), ("sha1", None, None), (None, None, "crc32c")],
)
def test_verified_by_claims_the_weakest_checksum(algorithm: str, in_one_run: str | None, resumed: str | None) -> None:
    """None: an earlier run sent all bytes with checksums, and this one uses none."""
    assert verified_by(algorithm, resumed=False) == in_one_run
    assert verified_by(algorithm, resumed=True) == resumed
