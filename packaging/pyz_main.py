"""Run uploader from uploader.pyz: unpack the file at its first start, then import the packages from there.

Python can't import compiled modules from a zip file, and modules from a directory keep their bytecode. The syntax is
that of old versions of Python, so that these can print which one is needed.
"""

import os
import sys

CONTENT = "@CONTENT@"  # the digest of the packages
MACHINE = "@MACHINE@"
PYTHONS = "@PYTHONS@"


def main():
    """Run the command and return its exit code."""
    tag = "%d.%d" % sys.version_info[:2]
    if tag not in PYTHONS.split() or sys.implementation.name != "cpython" or not _runs_wheels():
        return _refuse(
            "this file runs on Linux %s with glibc and CPython %s" % (MACHINE, PYTHONS.replace(" ", ", ")),
            "run: pip install uploader-cli",
        )
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    place = os.path.join(cache, "uploader", "pyz", "%s-%s" % (CONTENT, tag))
    if not os.path.isdir(place):
        try:
            _unpack(tag, place)
        except OSError as error:
            return _refuse(
                "cannot unpack to %s: %s" % (place, error.strerror or error),
                "set XDG_CACHE_HOME to a directory that you can write to",
            )
    sys.path[:1] = [os.path.join(place, tag), os.path.join(place, "lib")]
    sys.dont_write_bytecode = False  # the directory is ours; without bytecode each start takes twice as long
    from uploader_cli.__main__ import run

    return run()


def _runs_wheels():
    try:
        return os.uname().machine == MACHINE and bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError):  # Windows; macOS, musl
        return False


def _unpack(tag, place):
    """Write the packages for this Python into the directory `place`, which appears when it is complete."""
    import shutil
    import tempfile
    import zipfile

    parent = os.path.dirname(place)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    unfinished = tempfile.mkdtemp(prefix="unfinished-", dir=parent)
    try:
        with zipfile.ZipFile(os.path.dirname(os.path.abspath(__file__))) as file:
            for name in (tag, "lib"):
                with file.open(name + ".zip") as packed, zipfile.ZipFile(packed) as packages:
                    packages.extractall(os.path.join(unfinished, name))
        try:
            os.rename(unfinished, place)
        except OSError:
            if not os.path.isdir(place):  # else another process was quicker
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _refuse(problem, fix):
    sys.stderr.write("error: uploader.pyz: %s\nhint: %s\n" % (problem, fix))
    return 2


if __name__ == "__main__":
    sys.exit(main())
