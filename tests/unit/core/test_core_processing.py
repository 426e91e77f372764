"""What the answers of `--result-url` say of a file that the server processes."""

from __future__ import annotations

import pytest

from uploader_cli.core.processing import reason_in


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"status": {"state": "error", "errorReasonText": "It is no video file."}}, "It is no video file."),
        ({"status": {"state": "error"}, "reasons": ["too long", 7, "", "too wide"]}, "too long; too wide"),
        ({"status": {"state": "error", "error": {"reason": "too long"}}}, "too long"),
        ({"status": {"state": "error"}}, ""),
        (["error"], ""),
    ],
)
def test_reason_is_beside_the_state_or_around_it(body: object, reason: str) -> None:
    """The longest of several; those of a list are joined."""
    assert reason_in(body, "status.state") == reason
