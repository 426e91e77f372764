"""The exit code of each way to end, as in the table of docs/cli.md."""

from __future__ import annotations

from itertools import combinations

import feature_samples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli import errors
from uploader_cli.core.events import FailureCode
from uploader_cli.exit_status import Exit, of_error, of_failure, worst

RANKED = (143, 130, 7, 5, 6, 4, 3)


def test_code_further_left_applies_in_either_order() -> None:
    """Of two codes the one further left applies, in either order."""
    for first, second in combinations(map(Exit, RANKED), 2):
        assert worst([first, second]) == worst([second, first]) == first


@given(st.lists(st.sampled_from([0, *RANKED]).map(Exit)))
def test_the_worst_of_many(codes: list[Exit]) -> None:
    assert worst(codes) == next((code for code in RANKED if code in codes), 0)


@given(st.lists(st.sampled_from(Exit)))
def test_only_success_is_success(codes: list[Exit]) -> None:
    """Codes without a rank, which end a command early, are no success either."""
    assert (worst(codes) == Exit.OK) == (set(codes) <= {Exit.OK})


@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize("code", sorted(FailureCode))
def test_the_code_of_a_failed_file(code: FailureCode, retryable: bool) -> None:
    special = {
        FailureCode.INTEGRITY: 7,
        FailureCode.MISMATCH: 7,
        FailureCode.UNAUTHORIZED: 5,
        **feature_samples.EXITS,
    }
    assert of_failure(code, retryable=retryable) == special.get(code, 3 if retryable else 4)


ERRORS: list[tuple[BaseException, int]] = [
    (errors.UsageError("x"), 2),
    (errors.NetworkError("x"), 6),
    (errors.ConnectFailed("x"), 6),
    (errors.Unreachable("x"), 3),
    (errors.ConnectionLost("x"), 6),
    (errors.TimedOut("x"), 6),
    (errors.NotAnUploadServer("x"), 6),
    (errors.ProtocolError("x"), 6),
    (errors.SessionUnknown("x"), 4),
    (errors.Unauthorized("x", status=401), 5),
    (errors.Unauthorized("x", status=403), 5),
    (errors.RateLimited("x", status=429), 3),
    (errors.ServerFault("x", status=500), 3),
    (errors.SessionLost("x", status=500), 3),
    (errors.TooSlow("x", status=408), 3),
    (errors.NotFound("x", status=404), 4),
    (errors.AnswerError("x", status=400), 4),
    (errors.FileError("x", path="a", code=FailureCode.VANISHED), 4),
    (errors.OutcomeUnknown("x"), 4),
    (errors.Interrupted("x"), 4),
    (errors.UploaderError("x"), 4),
    (KeyError("x"), 1),
    (OSError("x"), 1),
    (AssertionError(), 1),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_the_code_of_an_error_that_ended_a_command(error: BaseException, code: int) -> None:
    assert of_error(error) == code


def tree(root: type[errors.UploaderError]) -> set[type[errors.UploaderError]]:
    return {root, *(each for kind in root.__subclasses__() for each in tree(kind))}


@pytest.mark.parametrize("kind", sorted(tree(errors.UploaderError), key=repr))
def test_every_error_class_has_an_exit_code(kind: type[errors.UploaderError]) -> None:
    assert of_error(kind.__new__(kind)) not in (Exit.OK, Exit.BUG)


# --- the errors themselves -------------------------------------------------------------------------------------------


def test_error_has_message_and_hint() -> None:
    error = errors.ConnectFailed("http://x: refused", hint="is the server running?")
    assert (str(error), error.hint) == ("http://x: refused", "is the server running?")
    assert errors.ConnectFailed("x").hint == ""


def test_which_answers_are_retryable() -> None:
    for status in range(400, 600):
        error = errors.AnswerError("x", status=status, error="CODE", retry_after=2.0)
        assert error.retryable == (status >= 500 or status in (408, 423, 425, 429)), status
        assert (error.status, error.error, error.retry_after) == (status, "CODE", 2.0)


def test_an_error_about_a_file_has_the_files_reason() -> None:
    error = errors.FileError("gone", path="a.mp4", code=FailureCode.VANISHED, hint="look")
    assert (error.path, error.code, error.hint, error.retryable) == ("a.mp4", FailureCode.VANISHED, "look", False)
    assert (str(error), error.reason) == ("a.mp4: gone", "gone")
    assert errors.FileError("x", path="b", code=FailureCode.CHANGED).code is FailureCode.CHANGED


@pytest.mark.parametrize(
    ("error", "body_sent"),
    [
        (errors.ConnectionLost("x"), False),
        (errors.ConnectionLost("x", body_sent=True), True),
        (errors.TimedOut("x", body_sent=True), True),
    ],
)
def test_a_lost_connection_knows_whether_the_request_was_out(error: errors.ConnectionLost, body_sent: bool) -> None:
    assert error.body_sent is body_sent
    assert isinstance(error, errors.NetworkError)
