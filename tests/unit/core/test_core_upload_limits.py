"""`Upload-Limit` of the IETF's resumable uploads: a dictionary as RFC 9651 has it."""

from __future__ import annotations

import pytest

from uploader_cli.core.upload_limits import UploadLimits, upload_limits


@pytest.mark.parametrize(
    ("header", "limits"),
    [
        ("min-size=0", UploadLimits(min_size=0)),
        ("max-size=9, min-append-size=1,max-append-size=5 , max-age=60", UploadLimits(9, least=1, most=5)),
        ("max-size=7;unit=bytes", UploadLimits(7)),
        ('note="a, max-size=1", other=("b" ?1), at=@5, token=a/b, bytes=:YQ==:, flag, max-size=9', UploadLimits(9)),
        ("max-size=1, max-size=2", UploadLimits(2)),
        (None, None),
        (" ", None),
        ("max-size", None),
        ("max-size=1.5", None),
        ('max-size="1"', None),
        ("max-size=-1", None),
        ("max-age=soon, max-size=9", None),
        ("max-size=9,", None),
        ("Max-Size=9", None),
        ("max-size=9 max-age=1", None),
    ],
)
def test_known_sizes_are_read_and_a_malformed_header_counts_as_none(header: str | None, limits: object) -> None:
    assert upload_limits(header) == limits
