"""What the journal costs: `python benchmarks/journal.py [FILES]` (100,000 by default). Prints µs and bytes."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.core.plan import LocalFile
from uploader_cli.transfer.journal import Journal, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.transfer.journal_run import RunHandle

HERE = Target("http://127.0.0.1:8000", "personal")
URL = "http://127.0.0.1:8000/api/upload/files/0123456789abcdef0123456789abcdef"


def a_file(number: int) -> LocalFile:
    path = f"/home/somebody/pictures/2024/{number // 1000:04}/image-{number:07}.jpg"
    return LocalFile(number, path, path[1:], 10_000, 1_700_000_000_000_000_000 + number)


def small(run: RunHandle, numbers: range) -> None:
    """Two writes a file: what one with a single request needs."""
    for number in numbers:
        file = a_file(number)
        run.claim(file, "0123456789abcdef0123456789abcdef")
        run.completed(file, server_id=URL[-32:], location=URL, checksum="sha256 " + "0" * 64, verified=True)


def timed(what: str, count: int, action: Callable[[], object]) -> None:
    start = time.perf_counter()
    action()
    print(f"{what:<52} {(time.perf_counter() - start) / count * 1e6:9.1f} µs")


def process(directory: Path, numbers: range) -> None:
    with Journal(directory) as journal:
        small(journal.begin(HERE, {"n": numbers.start}), numbers)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        timed("open, new", 1, lambda: Journal(directory).close())
        with Journal(directory) as journal:
            run = journal.begin(HERE, {})
            timed(f"claim + completed, {count} small files, per write", 2 * count, lambda: small(run, range(count)))
            timed("checked, per chunk", 10_000, lambda: [run.checked(a_file(0), at) for at in range(10_000)])
            timed("receipt (--skip-existing)", 10_000, lambda: [run.receipt(a_file(at)) for at in range(10_000)])
            run.finish(ok=False)
            timed("begin, going on", 1, lambda: journal.begin(HERE, {}).finish(ok=False))
            again = journal.begin(HERE, {})
            timed("claim of a file that is done", count, lambda: [again.claim(a_file(at)) for at in range(count)])
            share = count // 4
            workers = [
                threading.Thread(target=small, args=(again, range((4 + at) * share, (5 + at) * share)))
                for at in range(4)
            ]
            timed("4 threads, per write", 8 * share, lambda: join(workers))
        timed(f"open, with {2 * count} receipts", 1, lambda: Journal(directory).close())
        size = sum(path.stat().st_size for path in directory.iterdir())
        print(f"{'size on disk, per receipt':<52} {size / (2 * count):9.1f} bytes")
    with tempfile.TemporaryDirectory() as scratch:
        share = count // 4
        others = [
            multiprocessing.Process(target=process, args=(Path(scratch), range(at * share, (at + 1) * share)))
            for at in range(4)
        ]
        timed("4 processes at once, per write", 8 * share, lambda: join(others))


def join(workers: list[threading.Thread] | list[multiprocessing.Process]) -> None:
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
