"""Run rounds of chaos for a time: `python -m tests.chaos --seed S --minutes M`. The exit code after a find is 1."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the helpers of the tests are modules there

from chaos.run import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="seed of the first round")
    parser.add_argument("--minutes", type=float, default=10.0, help="no round begins after so many minutes")
    parser.add_argument("--rounds", type=int, help="end after so many rounds; 1 repeats one")
    parser.add_argument("--directory", type=Path, help="where finds are kept (default: a new temporary directory)")
    parser.add_argument(
        "--only", help="rounds of a kind: tree, session, neighbour, trap, endings, tus, reference, proxy …"
    )
    given = parser.parse_args()
    place = given.directory or Path(tempfile.mkdtemp(prefix="chaos-"))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # below nohup clients would not catch it, and strikes wait for that
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers and clients must not stay
    summary = run(
        given.seed, given.minutes, place.resolve(), rounds=given.rounds, only=given.only, say=partial(print, flush=True)
    )
    sys.exit(1 if summary.finds else 0)
