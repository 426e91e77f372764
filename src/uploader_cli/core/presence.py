"""What follows for a file from what the server says of it.

Before it is sent its claim and its receipt count, too; afterwards how it was sent.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import NamedTuple


class ClaimState(StrEnum):
    NEW = "new"  # send `upload` from 0; with --no-resume `outdated` is an earlier upload
    RESUME = "resume"  # resume `upload`
    CHANGED = "changed"  # size or mtime changed: warn, delete `outdated`, send `upload` from 0
    UNKNOWN = "unknown"  # an earlier try of `upload` may have stored the file
    DONE = "done"  # it was sent since this run (or the one it resumes) began: `receipt`
    BUSY = "busy"  # another live run, or another entry of this run, is sending the file


class ReceiptState(Enum):
    """What a receipt of a file with this size and mtime says of it."""

    NONE = auto()  # there is none
    CURRENT = auto()  # the file is the one that was sent
    DOUBTFUL = auto()  # it may be another one by now, and a digest can tell
    BLIND = auto()  # it may be another one by now, and nothing can tell


class Answer(Enum):
    """What the server has in the place of a file."""

    EQUAL = auto()  # its bytes, by a digest
    ALIKE = auto()  # a file of its size, whose bytes are not known
    OTHER = auto()  # another file
    ABSENT = auto()  # none
    SILENT = auto()  # it does not say, or was not asked


class Choices(NamedTuple):
    """The options that decide about files which may be stored; `compares`: their bytes are compared."""

    skip_existing: bool = False
    trust_receipts: bool = False
    resend_unknown: bool = False
    fails_if_exists: bool = False
    compares: bool = False


class Follows(Enum):
    SENT = auto()
    CHANGED = auto()  # it is sent from the beginning
    LOST = auto()  # it is sent again: the server does not have it as it is now
    PRESENT = auto()  # skipped: the server has it
    RECEIPT = auto()  # skipped: only a receipt says that the server has it
    SPOILED = auto()  # it fails: the server has another file in the place of what was sent
    EXISTS = auto()  # it fails: its name is taken
    UNSURE = auto()  # it fails: the server may have stored it, or not
    IN_USE = auto()  # it fails: another run sends it


def follows(claim: ClaimState | None, receipt: ReceiptState, answer: Answer, choices: Choices) -> Follows:
    """Return what follows for a file; without a `claim`, one that is SENT is claimed first.

    A file is skipped only where the server has it, or where a receipt says so and the server says nothing else: a
    receipt of the run that goes on, or of any run with `--trust-receipts`. What may be stored is sent only where the
    server says that it is not, or with `--resend-unknown`.
    """
    match claim:
        case ClaimState.BUSY:
            return Follows.IN_USE
        case ClaimState.NEW | ClaimState.CHANGED if choices.fails_if_exists and answer in _THERE:
            return Follows.EXISTS
        case ClaimState.CHANGED:
            return Follows.CHANGED
        case ClaimState.NEW | ClaimState.RESUME:
            return Follows.SENT
        case ClaimState.UNKNOWN if choices.resend_unknown:
            return Follows.SENT
        case ClaimState.UNKNOWN:  # a size proves nothing: what is there may be another file
            return {Answer.EQUAL: Follows.PRESENT, Answer.SILENT: Follows.UNSURE}.get(answer, Follows.SENT)
    if answer in (Answer.EQUAL, Answer.ALIKE):
        return Follows.PRESENT
    if answer is Answer.OTHER and receipt is ReceiptState.CURRENT and choices.compares:
        return Follows.SPOILED
    if claim is ClaimState.DONE:
        is_lost = answer is not Answer.SILENT or receipt is ReceiptState.BLIND
        return Follows.LOST if is_lost else Follows.RECEIPT
    trusts = choices.skip_existing and choices.trust_receipts and receipt is not ReceiptState.NONE
    return Follows.RECEIPT if trusts and answer is Answer.SILENT else Follows.SENT


class Shown(Enum):
    """What follows for a file that was sent."""

    VERIFIED = auto()  # the stored bytes are its own
    SPOILED = auto()  # it fails: the server has stored others
    LATER = auto()  # it fails for now: the server may tell later
    UNSURE = auto()  # it fails: nothing shows that the stored bytes are its own
    UNVERIFIED = auto()  # it is stored, and checksums that the server compared show nothing
    STORED = auto()  # it is stored


def shown(answer: Answer, *, wanted: bool, may_tell: bool, adopted: bool, continued: bool) -> Shown:
    """Return what follows for a file that was sent, from a comparison of its bytes with the stored ones.

    `wanted`: the user asked for it, or the local file will be removed. `may_tell`: a server that was SILENT may answer
    later. `adopted`: it had bytes before this client sent any. `continued`: it got bytes after a break.
    """
    match answer:
        case Answer.EQUAL:
            return Shown.VERIFIED
        case Answer.OTHER:
            return Shown.SPOILED
    if wanted and may_tell:
        return Shown.LATER
    if adopted:
        return Shown.UNSURE
    return Shown.UNVERIFIED if continued else Shown.STORED


_THERE = (Answer.EQUAL, Answer.ALIKE, Answer.OTHER)
