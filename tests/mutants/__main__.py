"""Apply each mutant to a copy of the tree and run the tests that should fail: `python -m tests.mutants --help`."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants.table import MUTANTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.mutants.table import Mutant

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT = 300.0
"""Seconds that the tests of one mutant may take; a mutant that makes them hang is caught."""
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "node_modules", "build", "dist")


def main() -> int:
    """Print a line for each mutant; return 1 if one survived or could not be applied."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, metavar="N", help="try N of them, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--only", default="", metavar="TEXT", help="try those with TEXT in their file or description")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.file or options.only in mutant.breaks]
    if options.sample is not None:
        chosen = random.Random(options.seed).sample(chosen, min(options.sample, len(chosen)))
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        tree = Path(directory, "tree")
        shutil.copytree(REPOSITORY, tree, ignore=LEFT_OUT)
        tests = {test for mutant in chosen for test in mutant.tests.split()}
        if run(tree, tests, limit=LIMIT * len(chosen)) != "survived":
            sys.exit("the tests fail without a mutant, or take too long")
        results = [attempt(tree, mutant) for mutant in chosen]
    print(f"{results.count('caught')} caught, {results.count('survived')} survived, {results.count('error')} errors")
    return 0 if set(results) <= {"caught"} else 1


def attempt(tree: Path, mutant: Mutant) -> str:
    """Change one file of the copy, run the tests, and restore it."""
    path, began = tree / mutant.file, time.monotonic()
    original = path.read_text(encoding="utf-8")
    if original.count(mutant.text) != 1:
        result = "error"
    else:
        write(path, original.replace(mutant.text, mutant.instead))
        result = run(tree, mutant.tests.split())
        write(path, original)
    print(f"{result:8}  {time.monotonic() - began:5.1f} s  {mutant.breaks} ({mutant.file})", flush=True)
    return result


def write(path: Path, text: str) -> None:
    """Change a file so that Python compiles it again, which looks at the size and at whole seconds."""
    later = path.stat().st_mtime + 2
    path.write_text(text, encoding="utf-8")
    os.utime(path, (later, later))


def run(tree: Path, tests: Iterable[str], limit: float = LIMIT) -> str:
    """Run tests in the copy up to the first failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--timeout", "120"]
    path = os.pathsep.join(str(tree / name) for name in ("src", "server_stub"))
    process = subprocess.Popen(
        [*command, *(f"tests/{test}" for test in sorted(tests))],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "caught"
    return {0: "survived", 1: "caught"}.get(code, "error")


if __name__ == "__main__":
    sys.exit(main())
