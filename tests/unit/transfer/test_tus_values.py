"""The values of tus 1.0: capabilities, metadata, checksums, chunks, and URLs."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from uploader_cli.core.capabilities import (
    Capabilities,
    capabilities_of,
    checksum_header,
    chunk_length,
    encode_metadata,
    parse_capabilities,
    parts,
)
from uploader_cli.core.origins import resolved, trusts
from uploader_cli.core.protocol import whole
from uploader_cli.sources.checksums import is_fast

SERVER = "https://up.example:8443"
OFFER = {
    "endpoint": "/api/upload/files/",
    "version": "1.0.0",
    "extensions": ["creation", "Checksum", "concatenation", "creation-with-upload"],
    "checksumAlgorithms": ["sha1", "SHA256"],
    "maxSize": 1000,
}


class TestCapabilities:
    def test_session_answer_is_parsed(self) -> None:
        found = parse_capabilities(OFFER, SERVER)
        assert found == Capabilities(
            "https://up.example:8443/api/upload/files/",
            frozenset({"creation", "checksum", "concatenation", "creation-with-upload"}),
            frozenset({"sha1", "sha256"}),
            1000,
        )
        assert found is not None
        assert found.creates_with_upload
        assert found.concatenates

    @pytest.mark.parametrize(
        "change",
        [
            {"endpoint": None},
            {"endpoint": ""},
            {"version": "0.2.2"},
            {"endpoint": "https://elsewhere.example/files/"},
            {"endpoint": "https://up.example:9000/files/"},
            {"endpoint": "ftp://up.example:8443/files/"},
            {"endpoint": "http://[broken"},
        ],
    )
    def test_unusable_offer_is_none(self, change: dict[str, object]) -> None:
        assert parse_capabilities({**OFFER, **change}, SERVER) is None

    @pytest.mark.parametrize("body", [None, "tus", [], {}, {"endpoint": 5}])
    def test_missing_offer_is_none(self, body: object) -> None:
        assert parse_capabilities(body, SERVER) is None

    @pytest.mark.parametrize("size", [-1, 0, None])
    def test_offer_with_an_endpoint_only_has_no_extensions_and_no_limit(self, size: int | None) -> None:
        found = parse_capabilities({"endpoint": "files/", "extensions": "all", "maxSize": size}, SERVER + "/")
        assert found == Capabilities("https://up.example:8443/files/")

    def test_http_endpoint_on_the_servers_host_becomes_https(self) -> None:
        found = parse_capabilities({**OFFER, "endpoint": "http://up.example/files/"}, SERVER)
        assert found is not None
        assert found.endpoint == "https://up.example:8443/files/"

    def test_options_headers_are_parsed(self) -> None:
        headers = {
            "Tus-Version": "1.0.0,0.2.2",
            "Tus-Extension": "creation, checksum",
            "Tus-Checksum-Algorithm": "sha1",
            "Tus-Max-Size": "70",
        }
        found = capabilities_of(headers, SERVER)
        assert found == Capabilities(
            SERVER, extensions=frozenset({"creation", "checksum"}), checksum_algorithms=frozenset({"sha1"}), max_size=70
        )

    def test_options_without_headers_have_no_extensions(self) -> None:
        assert capabilities_of({}, SERVER) == Capabilities(SERVER, announced=False)

    def test_options_of_another_version_raise_value_error(self) -> None:
        with pytest.raises(ValueError, match=r"0\.2\.2"):
            capabilities_of({"Tus-Version": "0.2.2"}, SERVER)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("auto", "sha1 crc32c sha256", "crc32c"),
        ("auto", "sha1 sha256 md5", "sha256"),
        ("auto", "sha1 md5", "sha1"),
        ("auto", "md5", None),
        ("auto", "", None),
        ("none", "sha256", None),
        ("sha1", "sha1 sha256", "sha1"),
        ("sha256", "crc32c sha256", "sha256"),
    ],
)
def test_checksum_is_the_cheapest_that_is_offered(wanted: str, offered: str, chosen: str | None) -> None:
    extensions = frozenset({"checksum"})
    found = Capabilities("", extensions=extensions, checksum_algorithms=frozenset(offered.split()))
    assert found.checksum(wanted, is_fast) == chosen  # type: ignore[arg-type]


def test_auto_chooses_no_crc32c_in_pure_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("google_crc32c.implementation", "python")
    found = Capabilities("", frozenset({"checksum"}), frozenset({"crc32c", "sha256"}))
    assert [found.checksum(wanted, is_fast) for wanted in ("auto", "crc32c")] == ["sha256", "crc32c"]


@pytest.mark.parametrize("extensions", [frozenset({"checksum"}), frozenset[str]()])
def test_checksum_that_is_not_offered_raises_value_error(extensions: frozenset[str]) -> None:
    """The algorithm alone, without the extension, is no offer."""
    algorithms = frozenset({"sha1"}) if extensions else frozenset({"sha1", "sha256"})
    found = Capabilities("", extensions=extensions, checksum_algorithms=algorithms)
    with pytest.raises(ValueError, match="sha256"):
        found.checksum("sha256", is_fast)
    assert extensions or found.checksum("auto", is_fast) is None


@pytest.mark.parametrize(
    ("metadata", "header"),
    [
        ({}, ""),
        ({"filename": "a.mp4"}, "filename YS5tcDQ="),
        ({"filename": "é", "empty": ""}, "filename w6k=,empty"),
        ({"filename": "\udcff"}, "filename JUZG"),
    ],
)
def test_metadata_is_encoded(metadata: dict[str, str], header: str) -> None:
    assert encode_metadata(metadata) == header


@pytest.mark.parametrize("key", ["", "a b", "a,b", "ä", "a\n", "a\tb"])
def test_invalid_metadata_key_raises_value_error(key: str) -> None:
    with pytest.raises(ValueError, match="Upload-Metadata"):
        encode_metadata({key: "x"})


@pytest.mark.thorough
@given(
    st.dictionaries(
        st.from_regex(r"[a-zA-Z0-9_.-]+", fullmatch=True), st.text(st.characters(exclude_categories=["Cs"]))
    )
)
def test_encoded_metadata_decodes_to_the_same(metadata: dict[str, str]) -> None:
    pairs = [pair.partition(" ") for pair in encode_metadata(metadata).split(",") if pair]
    assert {key: base64.b64decode(value).decode() for key, _, value in pairs} == metadata


def test_checksum_header_is_base64() -> None:
    assert checksum_header("sha1", b"\0\1") == "sha1 AAE="


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_chunks_cover_the_file(length: int, size: int) -> None:
    offset = 0
    while count := chunk_length(offset, length, size):
        assert 0 < count <= size
        offset += count
    assert offset == length


@given(st.integers(1, 10_000), st.integers(1, 20))
def test_parts_cover_the_file(length: int, count: int) -> None:
    cut = list(parts(length, count))
    assert len(cut) == min(count, length)
    assert [start for start, _ in cut] == [sum(size for _, size in cut[:index]) for index in range(len(cut))]
    assert sum(size for _, size in cut) == length
    assert max(size for _, size in cut) - min(size for _, size in cut) <= 1


@pytest.mark.parametrize(
    ("value", "number"),
    [("0", 0), (" 12 ", 12), *((text, None) for text in (None, "", "-1", "1.0", "²", "1_0", "٣", "9" * 5000))],
)
def test_header_that_is_no_whole_number_is_none(value: str | None, number: int | None) -> None:
    assert whole(value) == number


@pytest.mark.parametrize(
    ("base", "location", "url"),
    [
        ("https://h/files/", "/files/1", "https://h/files/1"),
        ("https://h/files/", "1?a=b", "https://h/files/1?a=b"),
        ("https://h/files/", "//h/files/1", "https://h/files/1"),
        ("https://h:8443/files/", "http://h/files/1", "https://h:8443/files/1"),
        ("https://h/files/", "http://h:1080/files/1", "https://h/files/1"),
        ("https://h/files/", "https://other/1", "https://other/1"),
        ("http://h/files/", "http://other/1#x", "http://other/1"),
        ("http://h/files/", "https://h/files/1", "https://h/files/1"),
        ("https://h/files/", " /files/1 ", "https://h/files/1"),
    ],
)
def test_location_is_resolved_against_the_answers_url(base: str, location: str, url: str) -> None:
    assert resolved(base, location) == url


@pytest.mark.parametrize(
    "location",
    [
        *("http://other/1", "ftp://h/1", "file:///etc/passwd", "http:///x", "javascript:1", "//h:99999/1"),
        *("https://other\\@h/1", "/a\\b", "https://h/files/\\1", "//user@h/1", "https://h:pass@other/1"),
        *("/a\tb", "https://h/files/\r\n1", "https://h\t/1", "/a\x00", "https://h\x7f/1"),
    ],
)
def test_unusable_location_raises_value_error(location: str) -> None:
    with pytest.raises(ValueError, match=r"https|not a usable URL|Port"):
        resolved("https://h/files/", location)


@pytest.mark.parametrize(
    ("base", "url", "trusted"),
    [
        ("https://h/files/", "https://h/files/1", True),
        ("https://h/files/", "https://H:443/other", True),
        ("https://h/files/", "http://h/files/1", False),
        ("https://h/files/", "https://h:8443/files/1", False),
        ("https://h/files/", "https://h.example/files/1", False),
        ("https://h/files/", "https://h@evil/files/1", False),
        ("http://h/files/", "https://h/files/1", True),
        ("http://h/files/", "https://h:8443/files/1", False),
        ("http://h:8005/files/", "http://h:8005/files/1", True),
        ("http://h:8005/files/", "http://h/files/1", False),
        ("http://h:80/files/", "https://h:443/files/1", True),
        ("http://h:8005/files/", "https://h/files/1", False),
        ("http://h/files/", "http://other\\@h/files/1", False),
        ("http://h/files/", "http://user@h/files/1", False),
        ("http://h/files/", "http://h/files/\t1", False),
        ("http://h/files/", "http://h:99999/files/1", False),
        ("http://h/files/", "http://h:x/files/1", False),
        ("http://h/files/", "http://[h/files/1", False),
    ],
)
def test_only_the_same_origin_is_trusted_with_the_token(base: str, url: str, trusted: bool) -> None:
    assert trusts(base, url) is trusted


BASES = st.sampled_from(["https://h/files/", "http://h:8005/files/", "http://h/files/"])
PIECES = [
    *(
        "http",
        "https",
        "ftp",
        ":",
        "//",
        "/",
        "\\",
        "@",
        "h",
        "evil",
        "[",
        "]",
        "::1",
        ":8005",
        ":443",
        "?",
        "#",
        "%",
        ";",
    ),
    *("\t", "\r\n", "\0", " ", "..", "é", "\uff0f", "\u2100", "\x7f"),
]
LOCATIONS = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)


@given(BASES, LOCATIONS | st.text(max_size=12))
def test_a_location_that_is_trusted_leads_to_the_same_host_for_whoever_dials(base: str, location: str) -> None:
    for resolve in (resolved, lambda _, url: url):
        try:
            url = resolve(base, location)
        except ValueError:
            continue
        if trusts(base, url):
            dialled, ours = parse_url(url), parse_url(base)
            assert dialled.host == ours.host
            assert dialled.auth is None
            assert (dialled.port, dialled.scheme) in {(ours.port, ours.scheme), (None, "https"), (443, "https")}


@given(
    st.dictionaries(
        st.sampled_from(["Tus-Version", "Tus-Extension", "Tus-Checksum-Algorithm", "Tus-Max-Size"]), st.text()
    )
)
def test_any_answer_to_options_is_read_or_speaks_another_version(headers: dict[str, str]) -> None:
    try:
        found = capabilities_of(headers, "https://h/files/")
    except ValueError:
        assert headers["Tus-Version"].strip()
        return
    assert found.max_size is None or found.max_size > 0
