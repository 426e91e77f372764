"""Another program that changes the files of a tree, or puts links in their place, while the client sends them."""

from __future__ import annotations

import json
import os
import random
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.invariants import path_in
from chaos.processes import Find

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.invariants import Tree


class Changes:
    """Makes the changes of a round, and knows the word that is in every file outside the tree.

    A link leads to a file of the size and modification time of the one whose place it takes.
    """

    def __init__(self, tree: Tree, directory: Path, seed: int) -> None:
        self._tree, self._outside = tree, directory / "outside"
        self._chance = random.Random(f"changes {seed}")
        self._word = secrets.token_bytes(8)

    def make(self, act: str, stream: Path) -> None:
        """Make a change of this kind, by preference to a file that is under way in the client's event stream."""
        files = sorted(path for path in self._tree.top.rglob("*") if _is_file(path))
        if not files:
            return
        path = self._chance.choice([path for path in _under_way(stream) if path in files] or files)
        if act == "rewrite":
            self._rewrite(path)
        elif act == "chmod":
            path.chmod(0o640)
            self._tree.change(path)
        else:
            place = path if act == "link" or path.parent == self._tree.top else path.parent
            behind = [file for file in files if file.is_relative_to(place)]
            if len(behind) < len(files):  # a tree without any file is an error of its own
                self._put_link(behind, place)

    def _rewrite(self, path: Path) -> None:
        info, content = path.stat(), self._chance.randbytes(path.stat().st_size)
        self._tree.change(path, content)
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _put_link(self, files: Iterable[Path], place: Path) -> None:
        """Move what is at `place` away, and make it a link to copies of `files` with other bytes."""
        target = self._outside / str(len(list(self._outside.glob("*"))))
        for path in files:
            secret, info = target / path.relative_to(place), path.stat()
            secret.parent.mkdir(parents=True, exist_ok=True)
            secret.write_bytes((self._word * (info.st_size // len(self._word) + 1))[: info.st_size])
            os.utime(secret, ns=(info.st_atime_ns, info.st_mtime_ns))
            self._tree.change(path)
        self._tree.change(place)
        place.rename(self._outside / f"{target.name} moved")
        place.symlink_to(target)

    def check(self, directories: Iterable[Path]) -> None:
        """Raise `Find` if a file below these directories contains bytes from outside the tree."""
        for path in (path for top in directories for path in top.rglob("*") if _is_file(path)):
            if self._word in path.read_bytes():
                raise Find(f"{path.name!r} on the server has the bytes of a file outside the tree")


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _under_way(stream: Path) -> list[Path]:
    """Return the paths of files that were started and have not ended, by the whole lines of an event stream."""
    begun: dict[str, Path] = {}
    for line in stream.read_bytes().split(b"\n")[:-1]:
        event = json.loads(line)
        if event["type"] == "file.started":
            begun[event["file"]] = path_in(event)
        elif event["type"] in ("file.completed", "file.failed", "file.skipped"):
            begun.pop(event["file"], None)
    return list(begun.values())
