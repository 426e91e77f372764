"""The parser of a pack's manifest: any bytes are accepted or rejected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.core import packs
from uploader_server.batch.packbody import Entry, parse_manifest
from uploader_server.http.bodies import PackLimits
from uploader_server.http.errors import ApiError

LIMITS = PackLimits(files=4, bytes=1000, file_size=500)

PATHS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)  # longer ones are shortened
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
ENTRIES = st.fixed_dictionaries(
    {
        "relativePath": PATHS,
        "size": st.integers(0, 250),
        "sha256": DIGESTS,
        "lastModified": st.integers(-(1 << 53), 1 << 53),
    }
)
MANIFESTS = st.fixed_dictionaries({"sessionId": st.text(), "files": st.lists(ENTRIES, min_size=1, max_size=4)})
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def refusal(text: bytes) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        parse_manifest(text, LIMITS)
    return caught.value.status, caught.value.code


@given(MANIFESTS, st.booleans())
def test_a_manifest_is_read_as_it_was_written(manifest: dict[str, Any], ascii_only: bool) -> None:
    session = manifest["sessionId"]
    text = json.dumps(manifest, ensure_ascii=ascii_only).encode("utf-8", "replace")
    read = parse_manifest(text, LIMITS)
    assert read.entries == [
        Entry(file["relativePath"], file["size"], file["sha256"], file["lastModified"]) for file in manifest["files"]
    ]
    assert read.total == sum(file["size"] for file in manifest["files"])
    assert read.session == (session if ascii_only else session.encode("utf-8", "replace").decode())
    written = packs.manifest(session, read.entries)
    assert parse_manifest(written, LIMITS) == read._replace(session=session)


@given(MANIFESTS, MANIFESTS)
def test_manifest_digest_depends_on_files_not_on_the_session(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = (parse_manifest(json.dumps(manifest).encode(), LIMITS) for manifest in (one, other))
    assert (first.digest == second.digest) == (one["files"] == other["files"])
    moved = parse_manifest(json.dumps({**one, "sessionId": "other"}).encode(), LIMITS)
    assert moved.digest == first.digest


@given(MANIFESTS, st.data())
def test_manifest_with_one_invalid_value_is_refused(manifest: dict[str, Any], data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([manifest, manifest["files"][-1]]))
    key = data.draw(st.sampled_from([*place, "unknown"]))
    if key != "unknown" and data.draw(st.booleans()):
        del place[key]
    else:
        right = {"sessionId": str, "relativePath": str, "sha256": str, "files": list, "size": int, "lastModified": int}
        place[key] = data.draw(ANYTHING.filter(lambda value: type(value) is not right.get(key)))
    assert refusal(json.dumps(manifest).encode()) == (400, "INVALID_MANIFEST")


@given(st.binary() | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_body_that_is_not_a_manifest_is_refused(text: bytes) -> None:
    assert refusal(text) == (400, "INVALID_MANIFEST")


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"sessionId": "", "files": [%s]}' % (b"9" * 5000), b"\xff", b""])
def test_pathological_json_is_refused(text: bytes) -> None:
    assert refusal(text) == (400, "INVALID_MANIFEST")


@pytest.mark.parametrize(
    ("sizes", "status"), [([500, 500], 200), ([501], 413), ([500, 500, 1], 413), ([0] * 4, 200), ([0] * 5, 413)]
)
def test_limits_are_included(sizes: list[int], status: int) -> None:
    files = [{"relativePath": "a", "size": size, "sha256": "0" * 64, "lastModified": 0} for size in sizes]
    text = json.dumps({"sessionId": "", "files": files}).encode()
    if status == 200:
        assert parse_manifest(text, LIMITS).total == sum(sizes)
    else:
        assert refusal(text) == (status, "PACK_TOO_LARGE")


LATEST = 1 << 53


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("lastModified", LATEST, True),
        ("lastModified", -LATEST, True),
        ("lastModified", LATEST + 1, False),
        ("lastModified", -LATEST - 1, False),
        ("size", -1, False),
    ],
)
def test_time_is_at_most_what_json_represents_exactly(key: str, value: int, valid: bool) -> None:
    """Also before 1970."""
    file = {"relativePath": "a", "size": 0, "sha256": "0" * 64, "lastModified": 0, key: value}
    text = json.dumps({"sessionId": "", "files": [file]}).encode()
    if valid:
        assert parse_manifest(text, LIMITS).entries[0].modified == value
    else:
        assert refusal(text) == (400, "INVALID_MANIFEST")
