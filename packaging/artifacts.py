"""Build what a release consists of: `python packaging/artifacts.py [DIR]`, by default into build/dist.

The same commit gives the same bytes: times are those of SOURCE_DATE_EPOCH (by default of the commit), and the versions
of the bundled packages are those of packaging/bundled.txt.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from licences import licences

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "packaging/bundled.txt"
VENDORED = ROOT / "server_stub/uploader_server/features/page/static/vendor"
MAN_PAGES = ROOT / "build/man"
PYTHONS = ("3.11", "3.12", "3.13")
"""The versions of Python for which uploader.pyz and the Debian package have compiled modules."""
OF_INSTALLERS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")
COMPLETIONS = {
    "bash": "share/bash-completion/completions/uploader",
    "zsh": "share/zsh/site-functions/_uploader",
    "fish": "share/fish/vendor_completions.d/uploader.fish",
}
START = """\
#!/usr/bin/python3
import os
import sys

place = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib/uploader")
sys.path[:1] = [os.path.join(place, "%d.%d" % sys.version_info[:2]), os.path.join(place, "lib")]
from uploader_cli.__main__ import run

sys.exit(run())
"""
CONTROL = """\
Package: uploader
Version: {version}
Architecture: {architecture}
Maintainer: The contributors of uploader
Installed-Size: {size}
Depends: python3 (>= {oldest}), python3 (<< {next}), libc6 (>= 2.17), libgcc-s1
Section: net
Priority: optional
Description: upload files and follow the server's progress
 Sends files from terminals, CI jobs and scripts to an upload server or a tus
 server, reports for each file what the server confirmed, and resumes after
 interruptions. The bundled server is included.
"""
AFTER_INSTALLATION = '#!/bin/sh\nset -e\n[ "$1" != configure ] || py3compile -p uploader /usr/lib/uploader\n'
BEFORE_REMOVAL = "#!/bin/sh\nset -e\npy3clean -p uploader\n"


def main(directory: Path) -> None:
    """Replace the directory by one with all files of the release."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", _output("git", "log", "-1", "--format=%ct").strip())
    os.environ["PYTHONHASHSEED"] = "0"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    _run(sys.executable, "docs/man_page.py")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", directory)
    (wheel,) = directory.glob("*.whl")
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        bundle = _bundle(work, wheel)
        pyz = directory / "uploader.pyz"
        _write_pyz(pyz, bundle)
        share = _share(work, pyz)
        _write_tar(directory / f"uploader-{version}-share.tar.gz", share)
        notices = licences(ROOT / "LICENSE", bundle, VENDORED)
        (directory / f"uploader-{version}-licences.txt").write_text(notices, encoding="utf-8")
        _write_debian_package(directory, work / "debian", version, bundle, share, notices)
        _write_sbom(directory / f"uploader-{version}.cdx.json", work / "environment", wheel)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(directory.iterdir())]
    (directory / "SHA256SUMS").write_text("".join(sums))
    print(*sums, sep="", end="")


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], cwd=ROOT, check=True)


def _output(*command: object, **environment: str) -> str:
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=ROOT, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _uv(*words: object) -> None:
    _run(sys.executable, "-m", "uv", *words, "--quiet")


def _bundle(work: Path, wheel: Path) -> Path:
    """Return a directory with the packages that are equal for all versions of Python, and one for each version."""
    trees = {}
    for python in PYTHONS:
        tree = trees[python] = work / "installed" / python
        for what in (("--require-hashes", "-r", BUNDLED), ("--no-deps", wheel)):
            target = ("--target", tree, "--python-version", python, "--python-platform", _platform())
            _uv("pip", "install", *target, "--only-binary", ":all:", "--link-mode", "copy", *what)
        for useless in ("bin", "share", ".lock"):
            path = tree / useless
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        for path in (found for name in OF_INSTALLERS for found in tree.glob(f"*.dist-info/{name}")):
            path.unlink()
    bundle = work / "bundle"
    contents = {python: {path.name: _contents(path) for path in tree.iterdir()} for python, tree in trees.items()}
    for python, tree in trees.items():
        for name, content in contents[python].items():
            common = all(other.get(name) == content for other in contents.values())
            target = bundle / ("lib" if common else python) / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                (tree / name).rename(target)
    _settle(bundle)
    return bundle


def _platform() -> str:
    return f"{platform.machine()}-manylinux2014"


def _contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in _files(path)}


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _settle(tree: Path) -> None:
    """Give files and directories the same permissions and time on every machine."""
    now = int(os.environ["SOURCE_DATE_EPOCH"])
    for path in (tree, *tree.rglob("*")):
        script = path.is_file() and path.read_bytes()[:2] == b"#!" and path.suffix != ".py"
        path.chmod(0o755 if path.is_dir() or script else 0o644)
        os.utime(path, (now, now))


def _write_pyz(pyz: Path, bundle: Path) -> None:
    """Write a zip file of zip files: Python reads the list of its entries at each start, so it is short."""
    contents = {f"{tree.name}.zip": _zip(_contents(tree), zipfile.ZIP_DEFLATED) for tree in sorted(bundle.iterdir())}
    start = (ROOT / "packaging/pyz_main.py").read_text()
    digest = hashlib.sha256(b"".join(contents.values())).hexdigest()
    for name, value in (("CONTENT", digest[:16]), ("MACHINE", platform.machine()), ("PYTHONS", " ".join(PYTHONS))):
        start = start.replace(f"@{name}@", value)
    pyz.write_bytes(b"#!/usr/bin/env python3\n" + _zip({"__main__.py": start.encode(), **contents}, zipfile.ZIP_STORED))
    pyz.chmod(0o755)


def _zip(contents: dict[str, bytes], compression: int) -> bytes:
    when = time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6]
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name, when)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data, compression, compresslevel=9)
    return raw.getvalue()


def _share(work: Path, pyz: Path) -> Path:
    """Return a directory with the man pages and the scripts for completion, to be unpacked below a prefix."""
    share = work / "share-files"
    for shell, name in COMPLETIONS.items():
        script = _output(sys.executable, pyz, "completion", shell, XDG_CACHE_HOME=str(work / "cache"))
        _write(share / name, script.encode())
    for page in MAN_PAGES.iterdir():
        _write(share / "share/man/man1" / page.name, page.read_bytes())
    _settle(share)
    return share


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_tar(target: Path, tree: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _files(tree):
            entry = archive.gettarinfo(path, str(path.relative_to(tree)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            archive.addfile(entry, io.BytesIO(path.read_bytes()))
    with target.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped:
        zipped.write(raw.getvalue())


def _write_debian_package(directory: Path, tree: Path, version: str, bundle: Path, share: Path, notices: str) -> None:
    """Write a package that has its libraries for itself, and needs only Debian's Python."""
    shutil.copytree(bundle, tree / "usr/lib/uploader")
    shutil.copytree(share / "share", tree / "usr/share")
    vendored = tree / "usr/share/zsh"
    (vendored / "site-functions").rename(vendored / "vendor-completions")  # Debian's name of the directory
    for page in (tree / "usr/share/man/man1").iterdir():
        page.with_name(f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()
    _write(tree / "usr/bin/uploader", START.encode())
    _write(tree / "usr/share/doc/uploader/copyright", notices.encode())
    size = sum(path.stat().st_size for path in _files(tree)) // 1024
    architecture = _output("dpkg", "--print-architecture").strip()
    debian_version = re.sub(r"(?<=\d)(a|b|rc)(?=\d)", r"~\1", version)  # 1.0.0~rc1 is older than 1.0.0
    following = re.sub(r"\d+$", lambda minor: str(int(minor[0]) + 1), PYTHONS[-1])
    values = {"version": debian_version, "architecture": architecture, "size": size}
    control = CONTROL.format(**values, oldest=PYTHONS[0], next=following)
    _write(tree / "DEBIAN/control", control.encode())
    _write(tree / "DEBIAN/postinst", AFTER_INSTALLATION.encode())
    _write(tree / "DEBIAN/prerm", BEFORE_REMOVAL.encode())
    _settle(tree)
    _run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, directory)


def _write_sbom(target: Path, environment: Path, wheel: Path) -> None:
    """Write the packages of bundled.txt, and the libraries of the page in a browser, as CycloneDX."""
    _uv("venv", environment, "--python", sys.executable)
    into = ("--python", environment / "bin/python")
    _uv("pip", "install", *into, "--require-hashes", "-r", BUNDLED)
    _uv("pip", "install", *into, "--no-deps", wheel)
    command = ("environment", "--output-reproducible", "--pyproject", ROOT / "pyproject.toml", environment)
    found = json.loads(_output(sys.executable, "-m", "cyclonedx_py", *command))
    found["components"] = sorted(
        [_without_place(one) for one in found["components"] if one["name"] != "uploader-cli"] + _vendored(),
        key=lambda one: one["name"],
    )
    target.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")


def _without_place(component: dict[str, object]) -> dict[str, object]:
    """Leave out references to files of this machine."""
    references = [one for one in component.get("externalReferences", []) if not one["url"].startswith("file:")]  # type: ignore[attr-defined]
    return {**component, **({"externalReferences": references} if references else {})}


def _vendored() -> list[dict[str, object]]:
    libraries = (path.name.rpartition("-") for path in sorted(VENDORED.iterdir()))
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:npm/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:npm/{name}@{version}",
            "licenses": [{"license": {"id": "MIT"}}],
        }
        for name, _, version in libraries
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/dist").resolve())
