"""Plans in a small language: `a.mp4 b.mp4 c.avi` becomes `[a.mp4 b.mp4] [c.avi]`. A size is written `a.mp4=300`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from fakes import local_file, local_files
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.core.events import FailureCode
from uploader_cli.core.plan import (
    ASSUMED,
    MIB,
    Limits,
    LocalFile,
    PlannedSession,
    plan_sessions,
    refusal,
    request_length,
)

MIXED = replace(ASSUMED, mixed_types=True)
PATHS = replace(ASSUMED, relative_paths=True)
OPEN = Limits(1000, 1 << 40, frozenset({"*"}), mixed_types=True, relative_paths=True)


def planned(words: str, limits: Limits) -> str:
    return " ".join(
        f"[{' '.join(file.relative_path for file in session.files)}]"
        for session in plan_sessions(local_files(words), limits)
    )


@pytest.mark.parametrize(
    ("limits", "files", "sessions"),
    [
        (ASSUMED, "", ""),
        (ASSUMED, "a.mp4", "[a.mp4]"),
        (ASSUMED, "a.mp4 b.mp4 c.mp4", "[a.mp4 b.mp4 c.mp4]"),
        (ASSUMED, "a.mp4 b.mp4 c.mp4 d.mp4", "[a.mp4 b.mp4 c.mp4] [d.mp4]"),
        # types are not mixed
        (ASSUMED, "a.mp4 b.mp4 c.avi", "[a.mp4 b.mp4] [c.avi]"),
        (ASSUMED, "a.mp4 c.avi b.mp4 d.avi", "[a.mp4 b.mp4] [c.avi d.avi]"),
        (ASSUMED, "a.MP4 b.mp4", "[a.MP4 b.mp4]"),
        (ASSUMED, "x.avi a.mp4 b.mp4 c.mp4", "[a.mp4 b.mp4 c.mp4] [x.avi]"),  # a full one goes first
        (MIXED, "a.mp4 c.avi b.mp4 d.avi", "[a.mp4 c.avi b.mp4] [d.avi]"),
        # 7 mp4 and 2 avi are four sessions
        (
            ASSUMED,
            "1.mp4 2.mp4 a.avi 3.mp4 4.mp4 5.mp4 6.mp4 b.avi 7.mp4",
            "[1.mp4 2.mp4 3.mp4] [4.mp4 5.mp4 6.mp4] [a.avi b.avi] [7.mp4]",
        ),
        # equal base names share no session, unless the server keeps paths
        (ASSUMED, "x/a.mp4 y/a.mp4", "[x/a.mp4] [y/a.mp4]"),
        (ASSUMED, "x/a.mp4 y/a.mp4 b.mp4 c.mp4", "[x/a.mp4 b.mp4 c.mp4] [y/a.mp4]"),
        (ASSUMED, "x/a.mp4 y/a.mp4 x/b.mp4 y/b.mp4", "[x/a.mp4 x/b.mp4] [y/a.mp4 y/b.mp4]"),
        (ASSUMED, "x/a.mp4 y/a.mp4 z/a.mp4", "[x/a.mp4] [y/a.mp4] [z/a.mp4]"),
        (PATHS, "x/a.mp4 y/a.mp4", "[x/a.mp4 y/a.mp4]"),
        (PATHS, "x/a.mp4 x/a.mp4", "[x/a.mp4] [x/a.mp4]"),
        (OPEN, "x/a.mp4 y/a.mp4 notes Makefile .hidden z.tar.gz", "[x/a.mp4 y/a.mp4 notes Makefile .hidden z.tar.gz]"),
    ],
)
def test_files_are_divided_into_sessions_by_the_limits(limits: Limits, files: str, sessions: str) -> None:
    assert planned(files, limits) == sessions


def test_fifty_files_at_three_a_session_are_seventeen() -> None:
    words = " ".join(f"{number}.mp4" for number in range(50))
    sessions = list(plan_sessions(local_files(words), ASSUMED))
    assert [len(session.files) for session in sessions] == [3] * 16 + [2]
    assert [file.file for session in sessions for file in session.files] == list(range(50))


def test_full_session_is_yielded_before_the_next_file_is_read() -> None:
    """The first upload can begin while the walk goes on."""

    def files() -> object:
        yield from local_files("a.mp4 b.mp4 c.mp4")
        raise AssertionError("the fourth was asked for")

    assert next(plan_sessions(files(), ASSUMED)).size == 30  # type: ignore[arg-type]


def test_a_plan_is_empty_before_it_has_files() -> None:
    assert PlannedSession().size == 0


# --- properties ------------------------------------------------------------------------------------------------------

words = st.builds(
    "{}{}.{}".format, st.sampled_from(["", "x/", "y/", "y/z/"]), st.sampled_from("abc"), st.sampled_from(["mp4", "avi"])
)
some_files = st.lists(words, max_size=40).map(lambda found: local_files(" ".join(found)))
any_limits = st.builds(
    Limits, st.integers(1, 5), st.just(1000), st.just(frozenset({"mp4", "avi"})), st.booleans(), st.booleans()
)


@given(some_files, any_limits)
def test_plan_has_each_file_once_within_every_limit(files: list[LocalFile], limits: Limits) -> None:
    sessions = [session.files for session in plan_sessions(files, limits)]
    assert Counter(file.file for session in sessions for file in session) == Counter(file.file for file in files)
    for session in sessions:
        assert 1 <= len(session) <= limits.max_files
        assert limits.mixed_types or len({file.kind for file in session}) == 1
        names = [file.relative_path if limits.relative_paths else file.name for file in session]
        assert len(set(names)) == len(names)


@given(some_files, any_limits)
def test_the_order_of_files_is_kept(files: list[LocalFile], limits: Limits) -> None:
    """Within a session always; over all of them for files of one type and with names of their own."""
    for session in plan_sessions(files, limits):
        numbers = [file.file for file in session.files]
        assert numbers == sorted(numbers)
    plain = [local_file(f"{number}.mp4", number) for number in range(len(files))]
    assert [file for session in plan_sessions(plain, limits) for file in session.files] == plain


@given(some_files, any_limits)
def test_plan_leaves_no_two_sessions_that_fit_into_one(files: list[LocalFile], limits: Limits) -> None:
    """To save calls, no two sessions that are not full could have been one, apart from their names."""
    sessions = [session.files for session in plan_sessions(files, limits)]
    small = [session for session in sessions if 2 * len(session) <= limits.max_files]
    for index, one in enumerate(small):
        for other in small[index + 1 :]:
            same_kind = limits.mixed_types or one[0].kind == other[0].kind
            names = {file.relative_path if limits.relative_paths else file.name for file in one}
            clash = any((file.relative_path if limits.relative_paths else file.name) in names for file in other)
            assert not same_kind or clash


# --- refusals --------------------------------------------------------------------------------------------------------

LIMIT = 300 * MIB


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("a.mp4=1", None),
        ("a.AVI=1", None),
        (f"a.mp4={LIMIT}", None),  # that size included
        (f"a.mp4={LIMIT + 1}", FailureCode.REFUSED_SIZE),
        ("a.mp4=0", FailureCode.EMPTY),
        ("a.mov=1", FailureCode.REFUSED_TYPE),
        ("mp4=1", FailureCode.REFUSED_TYPE),
        (".mp4=1", FailureCode.REFUSED_TYPE),
        ("a.mp4.=1", FailureCode.REFUSED_TYPE),
        ("x.mp4/a=1", FailureCode.REFUSED_TYPE),
        ("a.mov=0", FailureCode.REFUSED_TYPE),
    ],
)
def test_files_beyond_the_server_limits_are_refused_locally(word: str, code: FailureCode | None) -> None:
    refused = refusal(local_file(word), ASSUMED)
    assert (refused and refused.code) == code


@pytest.mark.parametrize("word", ["a.mov=1", "noext=1", ".hidden=1", "a.=1"])
def test_a_server_of_any_type_takes_any_name(word: str) -> None:
    assert refusal(local_file(word), OPEN) is None


def test_refusal_names_the_limit_and_the_value() -> None:
    mov, bare = refusal(local_file("a.mov"), ASSUMED), refusal(local_file("a"), ASSUMED)
    assert mov is not None
    assert mov.message == "the server accepts only avi, mp4; this file is .mov"
    assert bare is not None
    assert bare.message.endswith("this file has no extension")
    big = refusal(local_file(f"a.mp4={LIMIT + 1}"), ASSUMED)
    assert big is not None
    assert str(LIMIT + 1) in big.message
    assert str(LIMIT) in big.message


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [("a/b.c/d.Tar.GZ", "d.Tar.GZ", "gz"), ("d", "d", ""), (".d", ".d", ""), ("a/.d.mp4", ".d.mp4", "mp4")],
)
def test_a_files_name_and_kind(path: str, name: str, kind: str) -> None:
    file = local_file(path)
    assert (file.name, file.kind) == (name, kind)


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "rate", "metered", "length"),
    [
        # what arrives in 150 s at the measured rate
        ([100, 100, 100], 2.0, True, 3),
        ([100, 100, 101], 2.0, True, 2),
        ([301, 1], 2.0, True, 1),  # at least one, whatever it takes
        ([301], 2.0, True, 1),
        ([1, 1], 0.0, True, 1),
        # unmeasured: 1 MB/s
        ([75_000_000, 75_000_000, 1], None, True, 2),
        ([150_000_001, 1], None, True, 1),
        ([1] * 100, None, True, 100),
        # where calls cost nothing, small ones: 16 files, 64 MiB
        ([1] * 100, None, False, 16),
        ([1] * 100, 1e9, False, 16),
        ([32 * MIB, 32 * MIB, 1], 1e9, False, 2),
        ([64 * MIB + 1, 1], 1e9, False, 1),
        ([100, 100, 101], 2.0, False, 2),  # a slow line outranks the caps
        ([], None, True, 0),
    ],
)
def test_a_requests_length(sizes: list[int], rate: float | None, metered: bool, length: int) -> None:
    files = [local_file(f"{number}.mp4={size}", number) for number, size in enumerate(sizes)]
    assert request_length(files, rate, metered=metered) == length


@given(
    sizes=st.lists(st.integers(0, 1 << 32), min_size=1, max_size=40),
    rate=st.none() | st.floats(0, 1e10),
    metered=st.booleans(),
)
def test_a_request_holds_at_least_one_file_and_no_more_than_fit(
    sizes: list[int], rate: float | None, metered: bool
) -> None:
    files = [local_file(f"{number}.mp4={size}", number) for number, size in enumerate(sizes)]
    length = request_length(files, rate, metered=metered)
    budget = 150 * (1e6 if rate is None else rate)
    assert 1 <= length <= len(files)
    assert length == 1 or sum(sizes[:length]) <= budget
    if not metered and length > 1:
        assert length <= 16
        assert sum(sizes[:length]) <= 64 * MIB
    if metered and length < len(files):
        assert sum(sizes[: length + 1]) > budget
