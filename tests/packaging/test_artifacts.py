"""The artifacts of a release: each one uploads from an environment that has nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from command import environment
from docs_pages import ROOT
from serving import running_server

from uploader_cli import __version__
from uploader_cli.cli.app import COMMANDS

pytestmark = [pytest.mark.package, pytest.mark.timeout(900)]

PYTHONS = {
    version: found
    for version in ("3.11", "3.12", "3.13")
    if (found := shutil.which(f"python{version}")) and not subprocess.call([found, "-c", ""], stderr=subprocess.DEVNULL)
}
MAN_PAGES = {"uploader.1", *(f"uploader-{name}.1" for name in COMMANDS if name != "runs")}


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the artifacts."""
    built = os.environ.get("DIST")
    return Path(built) if built else build(tmp_path_factory.mktemp("dist"))


def build(directory: Path, **how: Any) -> Path:
    subprocess.run([sys.executable, ROOT / "packaging/artifacts.py", directory], check=True, cwd="/", **how)
    return directory


def only(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


def uploads(command: list[str | Path], home: Path, **extra: str) -> None:
    """Check that the command sends a file to a server and says its version; it sees no package of this environment."""
    (home / "holiday.mp4").write_bytes(os.urandom(100_000))
    env = {**environment(home), "XDG_CACHE_HOME": str(home / "cache"), **extra}
    env.pop("PYTHONPATH", None)

    def run(*arguments: str) -> str:
        return subprocess.run(
            [*command, *arguments], cwd=home, env=env, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    assert run("--version") == f"uploader {__version__}\n"
    with running_server(root=home / "stored", packs=True) as server:
        assert '"completed":1' in run("upload", "holiday.mp4", "-s", server.url, "--json").splitlines()[-1]
    (stored,) = (path for path in (home / "stored").rglob("*.mp4"))
    assert stored.read_bytes() == (home / "holiday.mp4").read_bytes()
    run("demo", "--files", "3", "--size", "1MB")


def test_sums_are_those_of_all_artifacts(dist: Path) -> None:
    sums = dict(line.split("  ")[::-1] for line in (dist / "SHA256SUMS").read_text().splitlines())
    assert sums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dist.iterdir() if path.name != "SHA256SUMS"
    }
    assert sorted(name.replace(__version__, "V") for name in sums if not name.endswith(".deb")) == [
        "uploader-V-licences.txt",
        "uploader-V-share.tar.gz",
        "uploader-V.cdx.json",
        "uploader.pyz",
        "uploader_cli-V-py3-none-any.whl",
        "uploader_cli-V.tar.gz",
    ]


@pytest.mark.parametrize("pattern", ["*.whl", "uploader_cli-*.tar.gz"])
def test_wheel_and_sdist_upload_from_an_empty_environment(pattern: str, dist: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", f"{only(dist, pattern)}[server]"], check=True)
    uploads([tmp_path / "venv/bin/uploader"], tmp_path)
    assert {path.name for path in (tmp_path / "venv/share/man/man1").glob("uploader*")} == MAN_PAGES
    assert re.search(r"^commit [0-9a-f]{40}$", (version_of(tmp_path / "venv/bin/uploader")), re.MULTILINE)


def version_of(command: Path) -> str:
    return subprocess.run([command, "--version", "-v"], check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.parametrize("version", PYTHONS)
def test_pyz_uploads_with_each_python(version: str, dist: Path, tmp_path: Path) -> None:
    uploads([PYTHONS[version], "-I", dist / "uploader.pyz"], tmp_path)


def test_pyz_started_twice_at_once_unpacks_whole_packages_and_leaves_nothing_else(dist: Path, tmp_path: Path) -> None:
    """It keeps bytecode in the directory, whatever the variable says, for the next start."""
    env = {**environment(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(dist / "uploader.pyz"), "--help"]
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(subprocess.check_output, command, env=env) for _ in range(2)]
    assert both[0].result() == both[1].result()
    (unpacked,) = (tmp_path / "uploader/pyz").iterdir()
    assert list((unpacked / "lib/uploader_cli/__pycache__").glob("__main__.*.pyc"))


def test_pyz_without_a_writable_cache_names_the_variable(dist: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    env = {**environment(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, str(dist / "uploader.pyz"), "demo"]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: uploader.pyz: cannot unpack to {tmp_path}/cache/")
    assert "set XDG_CACHE_HOME to a directory that you can write to" in done.stderr


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_debian_package_uploads_with_the_python_of_the_machine(dist: Path, tmp_path: Path) -> None:
    """It is unpacked below another directory; its programs find their packages there."""
    package = only(dist, "*.deb")
    subprocess.run(["dpkg-deb", "-x", package, tmp_path / "root"], check=True)
    python = next(reversed(PYTHONS.values()))
    uploads([python, "-I", tmp_path / "root/usr/bin/uploader"], tmp_path)
    pages = {path.name for path in (tmp_path / "root/usr/share/man/man1").iterdir()}
    assert pages == {f"{name}.gz" for name in MAN_PAGES}
    fields = subprocess.run(["dpkg-deb", "-f", package, "Version"], check=True, stdout=subprocess.PIPE, text=True)
    assert fields.stdout.strip().replace("~", "") == __version__


def test_completion_and_man_pages_unpack_below_a_prefix(dist: Path, tmp_path: Path) -> None:
    with tarfile.open(only(dist, "*-share.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    assert {path.name for path in (tmp_path / "share/man/man1").iterdir()} == MAN_PAGES
    assert (tmp_path / "share/zsh/site-functions/_uploader").read_text().startswith("#compdef uploader")
    assert "complete --command uploader" in (tmp_path / "share/fish/vendor_completions.d/uploader.fish").read_text()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uploader").symlink_to((dist / "uploader.pyz").resolve())
    script = (
        f"source {tmp_path}/share/bash-completion/completions/uploader\n"
        "COMP_WORDS=(uploader va) COMP_CWORD=1; _uploader_completion uploader; echo ${COMPREPLY[*]}"
    )
    env = environment(tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}", XDG_CACHE_HOME=str(tmp_path / "cache"))
    done = subprocess.run(["bash", "-c", script], env=env, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["validate"]


def test_bill_of_materials_and_licences_have_all_that_is_bundled(dist: Path) -> None:
    found = json.loads(only(dist, "*.cdx.json").read_text())
    assert found["bomFormat"] == "CycloneDX"
    assert "file:" not in json.dumps(found)
    assert {(normal(one["name"]), one["version"]) for one in found["components"]} == bundled()
    own, rows, *texts = only(dist, "*-licences.txt").read_text().split(f"\n\n{'-' * 78}\n\n")
    assert "uploader itself:\n\nMIT License" in own
    listed = {(normal(name), version) for name, version in re.findall(r"^(\S+) ([^ :]+).*: \w", rows, re.MULTILINE)}
    assert listed == bundled() | {("uploader-cli", __version__)}
    headed = {normal(re.split(r"[ ,]", text)[0]) for text in texts}
    assert headed == {name for name, _ in bundled()}


def bundled() -> set[tuple[str, str]]:
    """Return the packages that are pinned for Linux, and the libraries of the page in a browser."""
    lines = (ROOT / "packaging/bundled.txt").read_text().splitlines()
    pinned = [found.groups() for line in lines if "win32" not in line and (found := re.match(r"(\S+?)==(\S+)", line))]
    vendored = ROOT / "server_stub/uploader_server/features/page/static/vendor"
    packages = [*pinned, *(path.name.rsplit("-", 1) for path in vendored.iterdir())]
    return {(normal(name), version) for name, version in packages}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_second_build_has_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    """It runs with another umask."""
    again = build(tmp_path / "again", umask=0o077)
    assert (again / "SHA256SUMS").read_text() == (dist / "SHA256SUMS").read_text()
