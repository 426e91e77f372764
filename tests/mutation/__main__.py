"""Change random lines in a copy, run the tests that execute them: `python -m tests.mutation --help`.

The first run, and a run after a change of the code, traces which test executes which line; that takes a few minutes.
"""

from __future__ import annotations

import argparse
import functools
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from tests.mutation.places import Source
from tests.mutation.tree import Tree

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = {
    prefix + directory.name: directory
    for prefix, top in (("", "src/uploader_cli"), ("server/", "server_stub/uploader_server"))
    for directory in sorted((REPOSITORY / top).iterdir())
    if (directory / "__init__.py").exists()
}


def main() -> int:
    """Print a line for each change, the changes that no test noticed, and the share of the others in each package."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--package", action="append", choices=PACKAGES, help="only this one; repeatable")
    parser.add_argument("--minutes", type=float, default=20, help="start no new test run later (default: 20)")
    parser.add_argument("--seed", type=int, default=None, help="choose the same lines as the run that printed it")
    parser.add_argument("--seconds", type=float, default=120, help="of tests for one change (default: 120)")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    packages = options.package or [*PACKAGES]
    tree = Tree(REPOSITORY)
    print(f"seed {seed}", flush=True)
    counts: Counter[tuple[str, str]] = Counter()
    end = time.monotonic() + 60 * options.minutes
    for package, path, line in in_turn(packages, random.Random(seed)):
        if time.monotonic() > end:
            break
        source = source_of(path)
        place = random.Random(f"{seed} {path}:{line}").choice([each for each in source.places if each.line == line])
        tests = tree.tests_of(path, line if place.in_function else None, options.seconds)
        began = time.monotonic()
        result, by = tree.attempt(path, source.changed(place), tests)
        counts[package, result] += 1
        print(f"{result:8} {time.monotonic() - began:5.1f} s  {path}:{line}  {by}", flush=True)
        if result != "caught":
            print(*source.difference(place), sep="\n", flush=True)
    for package in packages:
        caught, survived = (counts[package, result] for result in ("caught", "survived"))
        print(f"{package:16} {caught} of {caught + survived} caught, {counts[package, 'error']} errors")
    return 1 if any(result == "error" for _, result in counts) else 0


@functools.cache
def source_of(path: str) -> Source:
    """Return a parsed module of the repository."""
    return Source((REPOSITORY / path).read_text(encoding="utf-8"))


def in_turn(packages: list[str], chance: random.Random) -> list[tuple[str, str, int]]:
    """Return package, file and line of all places in random order, the packages in turn."""
    lines: list[tuple[int, str, str, int]] = []
    for package in packages:
        found = [
            (path, line)
            for path in sorted(path.relative_to(REPOSITORY).as_posix() for path in PACKAGES[package].rglob("*.py"))
            for line in sorted({place.line for place in source_of(path).places})
        ]
        chance.shuffle(found)
        lines += [(turn, package, path, line) for turn, (path, line) in enumerate(found)]
    return [each[1:] for each in sorted(lines, key=lambda each: each[0])]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the changed file is restored
    sys.exit(main())
