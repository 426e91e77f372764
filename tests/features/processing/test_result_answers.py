"""What the answers of `--result-url` say of a file that the server processes."""

from __future__ import annotations

import pytest

from uploader_cli.features.processing.answers import found_at, reason_in


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


@pytest.mark.parametrize(
    ("path", "value"),
    [("files.1.url", "b"), ("files.2.url", None), ("files.url", None), ("files.0", {"url": "a"}), ("none.0", None)],
)
def test_numbers_of_a_path_are_places_in_lists(path: str, value: object) -> None:
    assert found_at({"files": [{"url": "a"}, {"url": "b"}]}, path) == value
