"""The commands of the pages that install packages or start a cluster of Dask. The first ones need a package index."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import ended, environment, read_until, start, uploader
from docs_pages import ROOT, blocks, page
from interop.proxies import running
from serving import free_port, running_server

pytestmark = pytest.mark.interop

INSTALL = 240
"""Seconds for an installation."""
PACKAGED = ("src", "server_stub", "docs", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE")


def commands(text: str, word: str) -> list[str]:
    """Return the shell commands with this word in a page."""
    found = [line for block in blocks(text) if block.language == "sh" for line in block.text.splitlines()]
    return [line for line in found if word in line]


@pytest.mark.feature("demo")
def test_install_commands_of_the_pages(tmp_path: Path) -> None:
    """They run in a copy of the repository, and README's first command runs the demo."""
    for name in PACKAGED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (first,) = commands((ROOT / "README.md").read_text(encoding="utf-8"), "uploader demo")
    (server,) = commands(page("server.md"), "pip install")
    (fixture,) = commands(page("tasks/embed.md"), "pip install")
    env = environment(tmp_path)
    env["PATH"] = f"{tmp_path}/.venv/bin:{env['PATH']}"
    for line, shown in ((first, "all confirmed"), (server, ""), (fixture, "")):
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=INSTALL
        )
        assert done.returncode == 0, done.stderr
        assert shown in done.stderr


@pytest.mark.feature("fleet")
def test_scheduler_and_worker_of_the_page_send_an_import(tmp_path: Path) -> None:
    """They are started as in docs/fleet.md, but for the address. The death of the scheduler ends a second import."""
    scheduler, worker = (line.partition("#")[0].split()[1:] for line in commands(page("fleet.md"), "dask "))
    (tmp_path / "files").mkdir()
    (tmp_path / "large.bin").write_bytes(bytes(9 << 20))
    for number in range(20):
        (tmp_path / "files" / f"{number}.bin").write_bytes(bytes(number))
    dask = str(Path(sys.executable).with_name("dask"))
    port, own = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--no-dashboard"]
    joined = [word.replace("scheduler:8786", address) for word in worker]
    with (
        running_server(packs=True) as server,
        running([dask, *scheduler, "--port", str(port), *options], port, cwd=tmp_path) as first,
        running([dask, *joined, "--worker-port", str(own), *options], own, cwd=tmp_path),
    ):
        on = f"dask://{address}"
        done = uploader("import", "files", "-s", server.url, "--on", on, "--json", home=tmp_path)
        line = ("import", "large.bin", "-s", server.url, "--on", on, "--limit-rate", "1M", "--json")
        process = start(*line, home=tmp_path)
        seen = read_until(process, "file.started")
        first.kill()
        killed = ended(process, seen)
    assert done.code == 0, done.err
    assert killed.code == 3, killed.err
    assert "the Dask scheduler is gone" in killed.err
    assert done.finished["completed"] == 20
