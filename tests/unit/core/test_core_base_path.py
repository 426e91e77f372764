"""Paths in answers are joined to the base URL of the server, whose path a proxy may remove."""

from __future__ import annotations

import pytest

from uploader_cli.core.origins import below, endpoint_of


@pytest.mark.parametrize(
    ("server", "where", "expected"),
    [
        ("http://h", "/api/x", "/api/x"),
        ("http://h/files", "/api/x", "/files/api/x"),
        ("http://h/files/", "/api/x", "/files/api/x"),
        ("http://h/files", "/files/api/x", "/files/api/x"),
        ("http://h/files", "/filesystem/x", "/files/filesystem/x"),
        ("http://h/files", "x", "x"),
        ("http://h/files", "//other/x", "//other/x"),
        ("http://h/files", "http://h/x", "http://h/x"),
        ("", "/x", "/x"),
    ],
)
def test_absolute_path_is_put_below_the_path_of_the_server(server: str, where: str, expected: str) -> None:
    assert below(server, where) == expected


@pytest.mark.parametrize("endpoint", ["http://other/x", "//other/x", "", None, 7])
def test_endpoint_on_another_host_or_none_is_rejected(endpoint: object) -> None:
    assert endpoint_of(endpoint, "http://h/files") is None


def test_endpoint_below_a_base_path() -> None:
    assert endpoint_of("/api/x/", "http://h/files") == "http://h/files/api/x/"
