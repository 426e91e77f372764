"""The parsers of single values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.settings import OPTIONS, Header, Invalid, addresses, parse_size, values
from uploader_cli.settings.addresses import server_url
from uploader_cli.settings.report_files import report_file


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("0", 0),
        ("8388608", 8388608),
        ("12B", 12),
        ("8K", 8 * 1024),
        ("8M", 8 * 1024**2),
        ("8m", 8 * 1024**2),
        ("8MiB", 8 * 1024**2),
        ("8MB", 8_000_000),
        ("8 MB", 8_000_000),
        ("1.5G", 3 * 1024**3 // 2),
        ("2T", 2 * 1024**4),
        (" 3kb ", 3000),
    ],
)
def test_sizes_are_read_with_their_units(written: str, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "M", "-1", "8X", "8MBB", "1e3", "0x10", "8 M B", "1.M"])
def test_invalid_size_values(written: str) -> None:
    with pytest.raises(Invalid, match="must be a size"):
        parse_size(written)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("localhost", "http://localhost"),
        ("localhost:8005", "http://localhost:8005"),
        ("127.0.0.1:8005/", "http://127.0.0.1:8005"),
        ("127.3.2.1", "http://127.3.2.1"),
        ("[::1]:8005", "http://[::1]:8005"),
        ("files.example", "https://files.example"),
        ("files.example:8443/up/", "https://files.example:8443/up"),
        ("192.168.1.5:8005", "https://192.168.1.5:8005"),
        ("localhost.example", "https://localhost.example"),
        ("[2001:db8::1]", "https://[2001:db8::1]"),
        ("http://files.example//", "http://files.example"),
        ("https://localhost", "https://localhost"),
        ("HTTPS://Files.Example/A/b", "https://files.example/A/b"),
    ],
)
def test_server_urls_are_completed_and_read_again_unchanged(written: str, url: str) -> None:
    assert server_url(written) == url
    assert server_url(url) == url, "what was read once reads the same again"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "http://",
        "http:/x",
        "https:///path",
        "ftp://files.example",
        "file:///etc/passwd",
        "files.example:port",
        "files.example:99999",
        "files.example:0",
        "files.example:",
        "files.example?x=1",
        "files.example/#top",
        "two words",
        "a\\b",
        "a\nb",
        "a\x85/",
        "[::1",
    ],
)
def test_bad_server_urls(written: str) -> None:
    with pytest.raises(Invalid):
        server_url(written)


@pytest.mark.parametrize(
    "written", ["https://me:hunter2@files.example", "me:hunter2@files.example", "http://me:hu/nter2@x"]
)
def test_credentials_in_the_url_are_refused_and_not_repeated(written: str) -> None:
    with pytest.raises(Invalid, match="credentials") as caught:
        server_url(written)
    assert "hu" not in str(caught.value)
    assert "--token-file" in caught.value.hint


@pytest.mark.parametrize("raw", [True, "1", "true", "YES", "on"])
def test_words_that_mean_yes_are_true(raw: object) -> None:
    assert values.switch(raw) is True


@pytest.mark.parametrize("raw", [False, "0", "False", "no", "off"])
def test_words_that_mean_no_are_false(raw: object) -> None:
    assert values.switch(raw) is False


@pytest.mark.parametrize("raw", ["maybe", "", 2, None])
def test_neither_true_nor_false(raw: object) -> None:
    with pytest.raises(Invalid, match="true or false"):
        values.switch(raw)


@pytest.mark.parametrize("raw", ["-1", "1.5", "x", "", "nan", "inf", True, [1], 1.5, 10**400])
def test_text_that_is_no_whole_number_is_invalid(raw: object) -> None:
    with pytest.raises(Invalid, match="whole number, 0 or more"):
        values.whole(0)(raw)


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("90", 90),
        (90, 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        (" 5m ", 300),
        ("1.5h", 5400),
    ],
)
def test_durations_are_read_as_seconds(raw: object, seconds: float) -> None:
    assert values.seconds(zero=False)(raw) == seconds


@pytest.mark.parametrize("raw", ["10x", "1m1h", "m", "-5m", "", "0m", "nan"])
def test_text_that_is_no_duration_is_invalid(raw: str) -> None:
    with pytest.raises(Invalid, match="a number of seconds \\(or 10m, 1h30m\\), more than 0"):
        values.seconds(zero=False)(raw)


@pytest.mark.parametrize(
    ("raw", "zero", "good"), [("0", True, True), (0, False, False), ("0.5", False, True), ("-1", True, False)]
)
def test_zero_seconds_are_valid_only_where_allowed(raw: object, zero: bool, good: bool) -> None:
    if good:
        assert values.seconds(zero=zero)(raw) == float(str(raw))
    else:
        with pytest.raises(Invalid, match="seconds"):
            values.seconds(zero=zero)(raw)


def test_jobs_are_a_number_or_auto() -> None:
    jobs = OPTIONS["jobs"].parse
    assert jobs("auto") == "auto"
    assert jobs("8") == 8
    with pytest.raises(Invalid, match="auto or a whole number, 1 or more, not '0'"):
        jobs("0")


@pytest.mark.parametrize(
    ("raw", "amount"), [("auto", "8M"), ("1M", 1 << 20), ("1024", 1024), (4096, 4096), (5e6, 5_000_000)]
)
def test_size_or_keyword(raw: object, amount: int | str) -> None:
    assert values.size(1024, auto="8M")(raw) == amount


@pytest.mark.parametrize("raw", ["1023", "0", 0, 1023, True, None, 1.5, [1]])
def test_too_small_or_missing_size_is_refused(raw: object) -> None:
    with pytest.raises(Invalid, match="must be auto or a size of at least 1024, not"):
        values.size(1024, auto="8M")(raw)


@pytest.mark.parametrize("written", ["9" * 5000, "9" * 400 + ".5"])
def test_huge_size_is_refused(written: str) -> None:
    with pytest.raises(Invalid, match="must be a size"):
        parse_size(written)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("localhost:1080/files/", "http://localhost:1080/files/"),
        ("tus.example/files", "https://tus.example/files"),
        ("https://Tus.Example/Files//", "https://tus.example/Files//"),
        ("tus.example", "https://tus.example"),
    ],
)
def test_an_endpoint_is_read_like_a_server_and_keeps_its_path(written: str, url: str) -> None:
    """Servers distinguish `/files` from `/files/`."""
    assert addresses.endpoint_url(written) == url
    assert addresses.endpoint_url(url) == url


@pytest.mark.parametrize("written", ["me:pw@tus.example", "tus.example/?token=x", "tus.example/#a", "ftp://h/", ""])
def test_text_that_is_no_endpoint_is_invalid(written: str) -> None:
    with pytest.raises(Invalid):
        addresses.endpoint_url(written)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("tus.example/files?override=true", "https://tus.example/files?override=true"),
        ("https://Tus.Example/api/tus/{path}?a={name}", "https://tus.example/api/tus/{path}?a={name}"),
        ("localhost:1080/spaces/{dir}/", "http://localhost:1080/spaces/{dir}/"),
    ],
)
def test_a_tus_endpoint_may_have_a_query_and_fields(written: str, url: str) -> None:
    assert addresses.tus_endpoint(written) == url
    assert addresses.tus_endpoint(url) == url


@pytest.mark.parametrize("written", ["h/{size}", "h/{path", "{name}.example/", "h/?a#b", "h/?a b", "me:pw@h/?a"])
def test_a_tus_endpoint_with_another_field_or_a_fragment_is_invalid(written: str) -> None:
    with pytest.raises(Invalid):
        addresses.tus_endpoint(written)


@pytest.mark.parametrize("raw", ["no colon", ": empty", "two words: x", "Ünï: x", 3])
def test_text_that_is_no_header_is_invalid(raw: object) -> None:
    with pytest.raises(Invalid, match="NAME:VALUE"):
        values.header(raw)


@pytest.mark.parametrize("raw", ["X-A: b\r\nX-Evil: 1", "X-A: b\nc", "X-A: b\0", "Authorization: Bearer s3cret\n"])
def test_a_header_value_with_a_line_break_is_refused_and_not_repeated(raw: str) -> None:
    with pytest.raises(Invalid, match="line break") as caught:
        values.header(raw)
    assert "Evil" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_secret_headers_are_not_shown() -> None:
    assert repr(Header("Authorization", "Bearer abc")) == "Header(Authorization: ***)"
    assert repr(Header("Cookie", "sid=1")) == "Header(Cookie: ***)"
    assert repr(Header("X-Api-Key", "1234")) == "Header(X-Api-Key: ***)"
    assert repr(Header("X-Team", "video")) == "Header(X-Team: video)"


@pytest.mark.parametrize("raw", ["socks4://h", "http://", "http://u:hunter2@h:x", "ftp://u:hunter2@h"])
def test_a_bad_proxy_is_refused_and_not_repeated(raw: str) -> None:
    with pytest.raises(Invalid, match="proxy") as caught:
        addresses.proxy_url(raw)
    assert "hunter2" not in str(caught.value)


def test_a_proxy_without_a_scheme_is_http() -> None:
    assert addresses.proxy_url("proxy.example:3128") == "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("written", "kind", "path"),
    [
        ("r.json", "json", "r.json"),
        ("out/R.CSV", "csv", "out/R.CSV"),
        ("csv:r.json", "csv", "r.json"),
        ("csv:/dev/fd/3", "csv", "/dev/fd/3"),
        ("C:r.json", "json", "C:r.json"),
    ],
)
def test_the_format_of_a_report(written: str, kind: str, path: str) -> None:
    report = report_file(written)
    assert (report.kind, str(report.path)) == (kind, path)


@pytest.mark.parametrize("written", ["", "r", "r.txt", "json:", "xml:r", 7])
def test_invalid_report_is_refused(written: object) -> None:
    with pytest.raises(Invalid):
        report_file(written)


# --- anything at all -------------------------------------------------------------------------------------------------

PIECES = [
    "8",
    "M",
    "MB",
    "iB",
    ":",
    "://",
    "@",
    "[",
    "]",
    "/",
    "~",
    "\0",
    "\udcff",
    "é",
    "²",
    "9" * 400,
    "none",
    ".json",
    "-",
]
RAW = (
    st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=6).map("".join)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.lists(st.integers(), max_size=2)
    | st.just({"a": 1})
    | st.just(10**400)
)
"""What a flag, the environment or TOML may give."""


@given(RAW)
def test_option_parsers_raise_only_invalid(raw: object) -> None:
    said = set()
    for option in OPTIONS.values():
        try:
            option.parse(raw)
        except Invalid as error:
            said.add(str(error))
    assert "" not in said


@given(st.integers(0, 10**18 - 1))
def test_formatted_size_parses_to_itself(count: int) -> None:
    assert parse_size(values.written_size(count)) == parse_size(str(count)) == count


@given(RAW)
def test_parsed_server_url_parses_to_itself(raw: object) -> None:
    try:
        url = server_url(raw)
    except Invalid:
        return
    assert server_url(url) == url
    assert url.startswith(("http://", "https://"))
