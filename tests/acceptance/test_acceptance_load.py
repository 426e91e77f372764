"""Uploaders and watchers on one server, run by `python -m tests.load`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from serving import REPOSITORY
from time_limits import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path


def load(where: Path, *arguments: str, deadline: float) -> str:
    """Run the load test and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.load", "--where", str(where), *arguments],
        capture_output=True,
        text=True,
        timeout=deadline,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.thorough
def test_ten_uploaders_and_fifty_watchers(tmp_path: Path) -> None:
    """Short form, with one user of the command: nothing fails, every watcher receives every end."""
    out = load(
        tmp_path, "--uploaders", "10", "--watchers", "50", "--real", "1", "--minutes", "0.03", deadline=4 * PATIENCE
    )
    assert "watchers without the end of a session: 0; errors: 0" in out
    assert out.endswith("passed\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.acceptance
@pytest.mark.timeout(1200)
def test_two_hundred_uploaders_and_a_thousand_watchers(tmp_path: Path) -> None:
    """Run for ten minutes."""
    print(load(tmp_path, deadline=1100))
