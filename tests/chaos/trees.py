"""Random trees of files: sizes, names, depths."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ODD = (
    "-rf",
    "--json",
    " leading space",
    "trailing space ",
    "two  spaces.txt",
    "ünïcödé.txt",
    "文件 上传.dat",
    "e\u0301 combining",
    "🙂.png",
    "[bold red]markup[/]",
    "<b>&amp;.html",
    "a&b=c?d#e%20f.txt",
    "quote'\"`$(true).sh",
    "back\\slash",
    "semi;colon, comma",
    "=1+1.csv",
    ".hidden",
    "...",
    "name (2).txt",
    "name.txt",
    "tab\there",
    "line\nbreak",
    "\x1b[31mred",
    "right\u202eleft",
    "C:drive",
    "con.tar.gz",
    "n" * 180,
)
BYTES = (b"not-utf-8-\xff\xfe", b"half-\xc3")
"""Names that are no UTF-8."""
MIB = 1 << 20


def random_tree(chance: random.Random, *, batch_only: bool) -> dict[str, int]:
    """Return sizes by relative path (as `os.fsdecode` returns it).

    With `batch_only` there are few files, none is empty, and the reference backend accepts the types of most.
    """
    if batch_only:
        names = [
            f"clip {number}.{chance.choice(['mp4', 'mp4', 'avi', 'txt'])}" for number in range(chance.randint(1, 9))
        ]
        names += chance.sample(["ünï 文件.mp4", "-x.mp4", "[b]%41&.avi"], k=chance.randint(0, 2))
        return {name: chance.choice([100, 5_000, 300_000, 1_500_000]) + number for number, name in enumerate(names)}
    sizes: dict[str, int] = {}
    for number in range(chance.choice([0, 3, 20, 60, 150])):
        sizes[f"small/{number:03}.bin"] = chance.choice([0, 1, 17, 1000, 4096, 20_000, 65_536])
    for number in range(chance.choice([0, 0, 1, 2, 5])):
        sizes[f"large-{number}.bin"] = chance.randint(200_000, 3 * MIB)
    for name in chance.sample(ODD, k=chance.randint(0, 10)):
        sizes[f"odd/{name}"] = chance.randint(0, 3000)
    if chance.random() < 0.2:
        sizes["odd/" + os.fsdecode(chance.choice(BYTES))] = chance.randint(0, 3000)
    if chance.random() < 0.4:
        sizes["deep/" + "/".join(f"d{depth}" for depth in range(chance.randint(3, 30))) + "/leaf"] = 321
    if chance.random() < 0.3:
        sizes |= {f"same/{number}": 2048 for number in range(4)}  # equal contents, see `make_tree`
    return sizes or {"only.bin": chance.randint(0, 100_000)}


def make_tree(top: Path, sizes: dict[str, int], seed: int) -> None:
    """Write files of random bytes."""
    source = random.Random(seed)
    for name, size in sizes.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size) if name.startswith("same/") else source.randbytes(size))
