"""What follows for a file before it is sent: every claim, receipt, answer and choice of options."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from uploader_cli.core.presence import Answer, Choices, ClaimState, Follows, ReceiptState, Shown, follows, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    Case = tuple[ClaimState | None, ReceiptState, Answer, Choices]

UNCLAIMED = None
NEW, RESUME, CHANGED, UNKNOWN, DONE, BUSY = ClaimState
NO_RECEIPT, CURRENT, DOUBTFUL, BLIND = ReceiptState
EQUAL, ALIKE, OTHER, ABSENT, SILENT = Answer

ROWS: list[tuple[Any, Any, Any, dict[str, bool], Follows]] = [
    # claims, receipts, answers ((): all), choices, and what follows
    ([BUSY], (), (), {}, Follows.IN_USE),
    ([RESUME], (), (), {}, Follows.SENT),
    ([NEW], (), (), {"fails_if_exists": False}, Follows.SENT),
    ([CHANGED], (), (), {"fails_if_exists": False}, Follows.CHANGED),
    ([NEW, CHANGED], (), [EQUAL, ALIKE, OTHER], {"fails_if_exists": True}, Follows.EXISTS),
    ([NEW], (), [ABSENT, SILENT], {"fails_if_exists": True}, Follows.SENT),
    ([CHANGED], (), [ABSENT, SILENT], {"fails_if_exists": True}, Follows.CHANGED),
    ([UNKNOWN], (), (), {"resend_unknown": True}, Follows.SENT),
    ([UNKNOWN], (), [EQUAL], {"resend_unknown": False}, Follows.PRESENT),
    ([UNKNOWN], (), [ALIKE, OTHER, ABSENT], {"resend_unknown": False}, Follows.SENT),
    ([UNKNOWN], (), [SILENT], {"resend_unknown": False}, Follows.UNSURE),
    ([DONE, UNCLAIMED], (), [EQUAL, ALIKE], {}, Follows.PRESENT),
    ([DONE, UNCLAIMED], [CURRENT], [OTHER], {"compares": True}, Follows.SPOILED),
    ([DONE], [CURRENT], [OTHER], {"compares": False}, Follows.LOST),
    ([DONE], [NO_RECEIPT, DOUBTFUL, BLIND], [OTHER], {}, Follows.LOST),
    ([DONE], (), [ABSENT], {}, Follows.LOST),
    ([DONE], [BLIND], [SILENT], {}, Follows.LOST),
    ([DONE], [NO_RECEIPT, CURRENT, DOUBTFUL], [SILENT], {}, Follows.RECEIPT),
    ([UNCLAIMED], [CURRENT], [OTHER], {"compares": False}, Follows.SENT),
    ([UNCLAIMED], [NO_RECEIPT, DOUBTFUL, BLIND], [OTHER], {}, Follows.SENT),
    ([UNCLAIMED], (), [ABSENT], {}, Follows.SENT),
    ([UNCLAIMED], [NO_RECEIPT], [SILENT], {}, Follows.SENT),
    (
        [UNCLAIMED],
        [CURRENT, DOUBTFUL, BLIND],
        [SILENT],
        {"skip_existing": True, "trust_receipts": True},
        Follows.RECEIPT,
    ),
    ([UNCLAIMED], [CURRENT, DOUBTFUL, BLIND], [SILENT], {"trust_receipts": False}, Follows.SENT),
    (
        [UNCLAIMED],
        [CURRENT, DOUBTFUL, BLIND],
        [SILENT],
        {"skip_existing": False, "trust_receipts": True},
        Follows.SENT,
    ),
]


def cases() -> Iterator[Case]:
    for claim, receipt, answer in product([*ClaimState, UNCLAIMED], ReceiptState, Answer):
        for chosen in product([False, True], repeat=len(Choices._fields)):
            yield claim, receipt, answer, Choices(*chosen)


def matching(case: Case) -> list[Follows]:
    """Return what the rows say that hold for a case."""
    claim, receipt, answer, choices = case
    return [
        what
        for claims, receipts, answers, chosen, what in ROWS
        if claim in claims and receipt in (receipts or ReceiptState) and answer in (answers or Answer)
        if all(getattr(choices, name) == value for name, value in chosen.items())
    ]


def test_every_case_has_one_row_and_follows_it() -> None:
    assert {case: matching(case) for case in cases() if matching(case) != [follows(*case)]} == {}


def test_a_file_is_skipped_only_if_it_is_there_or_nothing_denies_its_receipt() -> None:
    for case in cases():
        claim, receipt, answer, choices = case
        match follows(*case):
            case Follows.PRESENT:
                assert answer in (EQUAL, ALIKE), case
            case Follows.RECEIPT:
                assert answer is SILENT, case
                assert claim is DONE or (receipt is not NO_RECEIPT and choices.trust_receipts), case


def test_what_may_be_stored_is_sent_only_if_the_server_denies_it_or_by_choice() -> None:
    for case in cases():
        claim, _, answer, choices = case
        if claim is UNKNOWN and follows(*case) is Follows.SENT:
            assert choices.resend_unknown or answer in (ALIKE, OTHER, ABSENT), case


def test_sent_file_is_verified_or_spoiled_only_by_its_bytes() -> None:
    """Without them it fails where they are wanted and may be told later, or where it may be another file."""
    silent = {
        # wanted, may tell, adopted, continued
        (True, True, None, None): Shown.LATER,
        (True, False, True, None): Shown.UNSURE,
        (True, False, False, True): Shown.UNVERIFIED,
        (True, False, False, False): Shown.STORED,
        (False, None, True, None): Shown.UNSURE,
        (False, None, False, True): Shown.UNVERIFIED,
        (False, None, False, False): Shown.STORED,
    }
    answers: Any = (EQUAL, OTHER, SILENT)
    for answer, *facts in product(answers, *[[False, True]] * 4):
        wanted, may_tell, adopted, continued = facts
        rows = [row for row in silent if all(want in (None, fact) for want, fact in zip(row, facts, strict=True))]
        found = shown(answer, wanted=wanted, may_tell=may_tell, adopted=adopted, continued=continued)
        assert [found] == {EQUAL: [Shown.VERIFIED], OTHER: [Shown.SPOILED]}.get(
            answer, [silent[row] for row in rows]
        ), (answer, facts)
