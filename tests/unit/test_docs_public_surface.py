"""docs/public_surface.txt lists what docs/ready.md promises to keep."""

from __future__ import annotations

import runpy

from docs_pages import ROOT


def test_public_surface_is_announced() -> None:
    announced = (ROOT / "docs/public_surface.txt").read_text(encoding="utf-8").splitlines()
    present = runpy.run_path(str(ROOT / "docs/public_surface.py"))["surface"]().splitlines()
    gone, new = [sorted({*a} - {*b}) for a, b in ((announced, present), (present, announced))]
    assert not gone + new, "announce it in CHANGELOG.md, then run: python docs/public_surface.py"
    assert announced == present
