"""Name the licence of each package that a release contains, with its text."""

from __future__ import annotations

import re
from email import message_from_string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

HEAD = """\
This release contains the packages below, each under its own licence. Their texts follow.
uploader itself:

"""
TEXT = re.compile(r"(?i)^(licen[cs]e|copying|notice)")


def licences(own: Path, bundle: Path, vendored: Path) -> str:
    """Return the list of packages and all texts.

    `own` is the licence of uploader, `bundle` has the installed packages in directories, `vendored` has a directory
    with LICENSES.txt for each library of npm.
    """
    rows, texts = [], []
    for name, place in sorted(_installed(bundle).items()):
        about = message_from_string((place / "METADATA").read_text(encoding="utf-8"))
        rows.append(f"{name} {about['Version']}: {_licence(about)}")
        files = sorted(path for path in place.rglob("*") if path.is_file() and TEXT.match(path.name))
        if name != "uploader-cli":
            texts += [f"{name}, {path.name}:\n\n{path.read_text(encoding='utf-8').strip()}" for path in files]
    for place in sorted(vendored.iterdir()):
        text = (place / "LICENSES.txt").read_text(encoding="utf-8").strip()
        name, _, version = place.name.rpartition("-")
        rows.append(f"{name} {version} (npm, for the page in a browser): MIT, and those of its dependencies")
        texts.append(text)
    rule = f"\n\n{'-' * 78}\n\n"
    return rule.join([HEAD + own.read_text(encoding="utf-8").strip(), "\n".join(rows), *texts]) + "\n"


def _installed(bundle: Path) -> dict[str, Path]:
    """Return the metadata directory of each package; those of one package for several versions of Python are equal."""
    found = {}
    for place in sorted(bundle.glob("*/*.dist-info")):
        name = place.name.removesuffix(".dist-info").rpartition("-")[0]
        found[re.sub(r"[-_.]+", "-", name).lower()] = place
    return found


def _licence(about: Message) -> str:
    """Return the licence as the package declares it."""
    classifiers = [
        one.rpartition(" :: ")[2] for one in about.get_all("Classifier", []) if one.startswith("License :: OSI")
    ]
    declared: list[str] = [about["License-Expression"] or "", about["License"] or "", *classifiers]
    short = [one for one in declared if one and "\n" not in one]
    if not short:
        raise ValueError(f"{about['Name']}: no licence in its metadata")
    return short[0]
