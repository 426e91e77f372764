"""How large chunks and packs are: halved by refusals, and as large as the rate allows."""

from __future__ import annotations

import pytest
from fakes import Clock, local_files

from uploader_cli.core.packs import PackOffer
from uploader_cli.core.sizes import (
    CHUNK_GRAIN,
    FIRST_CHUNK,
    FIRST_PACK,
    LEAST_AFTER_413,
    MOST_CHUNK,
    MOST_PACK,
    SAFE_CHUNK,
    ChunkSize,
    Groups,
    PackSize,
)


def test_refused_size_is_halved_down_to_64_kib() -> None:
    chunk, sizes = ChunkSize(1 << 20), []
    while chunk.refuse(chunk.size):
        sizes.append(chunk.size)
    assert sizes == [1 << 19, 1 << 18, 1 << 17, LEAST_AFTER_413]
    assert LEAST_AFTER_413 == 64 << 10


def test_smaller_chunks_than_64_kib_are_halved_once() -> None:
    chunk = ChunkSize(1000)
    assert [chunk.refuse(chunk.size), chunk.refuse(chunk.size), chunk.size] == [True, False, 500]


def test_size_never_grows_again() -> None:
    chunk = ChunkSize(1 << 20)
    assert chunk.refuse(1 << 18)
    assert chunk.refuse(1 << 20)
    assert chunk.size == 1 << 17


def test_automatic_size_follows_the_rate() -> None:
    clock = Clock()
    chunk, sizes = ChunkSize("auto"), []
    for rate in (1e3, 2e7, 1e9, 1e7 + 1):
        with chunk.travelling(chunk.size, clock):
            clock.pass_(chunk.size / rate)
        sizes.append(chunk.size)
    assert sizes == [FIRST_CHUNK, 29_884_416, MOST_CHUNK, 14_942_208]
    assert all(size % CHUNK_GRAIN == 0 for size in sizes)


def test_failures_make_no_automatic_size_smaller_than_cloudflare_takes() -> None:
    chunk, sizes = ChunkSize("auto"), []
    for _ in range(2):
        chunk.failed()
        sizes.append(chunk.size)
    assert sizes == [SAFE_CHUNK] * 2
    assert SAFE_CHUNK == 5_242_880
    with chunk.travelling(chunk.size, Clock()):
        pass
    assert chunk.size > SAFE_CHUNK


def test_failure_after_413_leaves_the_size_that_was_not_refused() -> None:
    chunk = ChunkSize("auto")
    assert chunk.refuse(2 << 20)
    chunk.failed()
    assert chunk.size == 1 << 20


def test_automatic_size_is_halved_by_413_down_to_64_kib() -> None:
    chunk, sizes = ChunkSize("auto"), [0]
    while chunk.refuse(chunk.size):
        sizes.append(chunk.size)
    assert sizes[1::2] == [4 << 20, 1 << 20, 256 << 10, LEAST_AFTER_413]


def test_refused_body_between_two_sizes_leads_to_a_multiple_of_256_kib() -> None:
    chunk = ChunkSize("auto")
    assert chunk.refuse(3_000_001)
    assert chunk.size == 5 * CHUNK_GRAIN


def test_limit_is_known_once_a_chunk_below_it_arrives() -> None:
    chunk = ChunkSize("auto")
    assert chunk.refuse(8 << 20)
    assert chunk.limit is None
    chunk.arrived(8 << 20)  # it was under way before
    assert chunk.limit is None
    chunk.arrived(100)
    assert chunk.limit == 4 << 20


def test_known_limit_is_the_first_automatic_size_and_the_largest() -> None:
    chunk = ChunkSize("auto", 1 << 20)
    with chunk.travelling(1 << 20, Clock()):
        pass
    assert (chunk.size, chunk.limit) == (1 << 20, 1 << 20)


def test_larger_chunk_that_arrives_lifts_the_known_limit() -> None:
    """A number is what the user asked for: it is tried, whatever was known."""
    chunk = ChunkSize(4 << 20, 1 << 20)
    chunk.arrived(1 << 20)
    assert (chunk.size, chunk.limit) == (4 << 20, 1 << 20)
    chunk.arrived(4 << 20)
    assert chunk.limit is None


def test_automatic_size_stays_below_one_that_was_refused() -> None:
    chunk = ChunkSize("auto")
    assert chunk.refuse(8 << 20)
    with chunk.travelling(4 << 20, Clock()):
        pass
    assert chunk.size == 4 << 20


def test_size_that_was_asked_for_is_changed_by_413_alone() -> None:
    chunk = ChunkSize(1 << 20)
    chunk.failed()
    with chunk.travelling(1 << 20, Clock()):
        pass
    assert chunk.size == 1 << 20


@pytest.mark.parametrize(("beside", "capped"), [(0.5, False), (0.9, True)])
def test_connections_that_stay_as_fast_beside_others_are_capped(beside: float, capped: bool) -> None:
    clock = Clock()
    chunk = ChunkSize("auto")
    with chunk.travelling(chunk.size, clock):
        clock.pass_(1)
    size = chunk.size
    with chunk.travelling(size, clock), chunk.travelling(size, clock), chunk.travelling(size, clock):
        clock.pass_(1 / beside)
    assert chunk.capped is capped


def test_one_byte_is_not_divided() -> None:
    assert not ChunkSize(1).refuse(1)


def pack_size(jobs: int = 4) -> PackSize:
    return PackSize(PackOffer("/packs", 1000, 32 << 20, 4 << 20), "auto", jobs)


def test_packs_double_while_they_are_fast_and_shrink_when_one_takes_long() -> None:
    packs = pack_size()
    assert packs.bytes == FIRST_PACK
    packs.measured(packs.bytes // 2, 0.1)
    assert packs.bytes == FIRST_PACK, "a pack that is not half full says nothing of larger ones"
    for _ in range(5):
        packs.measured(packs.bytes, 0.1)
    assert packs.bytes == MOST_PACK
    packs.measured(8_000_000, 16.0)
    assert packs.bytes == 1_000_000, "what takes two seconds"
    packs.measured(1000, 100.0)
    assert packs.bytes == 20
    assert packs.count(local_files("a b", size=100)) == 1, "there is no least size but one file"


@pytest.mark.parametrize(
    ("limit_rate", "far", "size"),
    [(None, False, FIRST_PACK), (None, True, 256 << 10), (100_000, True, 50_000), (1e9, False, FIRST_PACK)],
)
def test_first_packs_take_two_seconds_by_what_is_known(limit_rate: float | None, far: bool, size: int) -> None:
    """The jobs share the limit. They are planned larger, for the time when more is known."""
    packs = PackSize(PackOffer("/packs", 1000, 32 << 20, 4 << 20), "auto", 4, limit_rate=limit_rate, far=far)
    assert (packs.bytes, packs.planned) == (size, FIRST_PACK)
    assert packs.count(local_files("a b c d", size=size // 3)) == 3


def test_refused_pack_is_halved_and_no_later_one_is_as_large() -> None:
    packs = pack_size()
    packs.shrink(1000)
    assert packs.bytes == 500
    for _ in range(5):
        packs.measured(packs.bytes, 0.1)
    assert packs.bytes == 1000


def test_packs_of_many_jobs_fit_into_memory() -> None:
    packs = pack_size()
    packs.share(16)
    for _ in range(5):
        packs.measured(packs.bytes, 0.1)
    assert packs.bytes == 2 << 20


@pytest.mark.parametrize("packed", [True, False])
def test_groups_are_passed_on_when_they_are_full_and_at_the_end(packed: bool) -> None:
    put: list[tuple[int, bool]] = []
    groups = Groups(pack_size() if packed else None, 2, lambda files, small: put.append((len(files), small)))
    for file in local_files(" ".join(f"{number}.bin" for number in range(501))):
        groups.add(file)
    assert put == ([(500, True)] if packed else [(2, False)] * 250)
    assert groups
    groups.flush()
    assert put[-1] == (1, packed)
    assert not groups


def test_files_at_urls_make_smaller_packs() -> None:
    """Each takes requests to its store, and the first pack is sent when it is read."""
    put: list[int] = []
    groups = Groups(pack_size(), 2, lambda files, _small: put.append(len(files)))
    for file in local_files(" ".join(f"s3://bucket/{number}.bin" for number in range(100))):
        groups.add(file)
    assert set(put) == {31}


def test_group_for_a_pack_begins_without_the_bytes_of_the_group_before() -> None:
    put: list[int] = []
    groups = Groups(pack_size(), 2, lambda files, _small: put.append(len(files)))
    for file in local_files("a b c d e", size=FIRST_PACK // 2):
        groups.add(file)
    groups.flush()
    assert put == [2, 2, 1]


def test_rule_of_a_server_bounds_all_sizes(subtests: pytest.Subtests) -> None:
    """Each size is allowed: at first, after a 413, after a failure, and for slow and fast connections."""
    least, most, multiple = 10 << 20, 40 << 20, 5 << 20
    chunk, clock = ChunkSize("auto", None, (least, most, multiple)), Clock()
    seen = [chunk.size]
    for seconds in (100, 0.01, 1.2):
        with subtests.test(seconds=seconds):
            with chunk.travelling(chunk.size, clock):
                clock.pass_(seconds)
            seen.append(chunk.size)
            chunk.failed()
            seen.append(chunk.size)
    while chunk.refuse(chunk.size):
        seen.append(chunk.size)
    assert all(least <= size <= most and size % multiple == 0 for size in seen)
    assert {seen[0], seen[-1], max(seen)} == {least, most}
    exact = ChunkSize("auto", 1 << 20, (6 << 20, 6 << 20, 1))
    assert exact.size == 6 << 20
    assert not exact.refuse(6 << 20)
