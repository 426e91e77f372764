"""Which draft the server implements, by interop versions."""

from __future__ import annotations

from typing import NamedTuple

from uploader_cli.features.checks.check import NotOffered, check
from uploader_cli.features.ietf.requests import INTEROP, place, try_creation
from uploader_cli.features.smoke.expect import same
from uploader_cli.features.smoke.site import Site

DRAFTS = {8: "-09 and later", 7: "-06 to -08", 6: "-04 and -05", 5: "-03", 4: "-02", 3: "-01"}
"""The texts of the draft by interop version."""
NEWEST, OLDEST = 9, 3
INCOMPLETE_UNTIL = 3
"""The last interop version with `Upload-Incomplete`."""


class _Spoken(NamedTuple):
    """An interop version that the server answers, 0 for requests without one; `by_104`: it says so itself."""

    version: int
    by_104: bool


def spoken(site: Site) -> list[_Spoken]:
    """Create an empty upload in each interop version, newest first; return those that the server answers."""
    found = []
    for version in (0, *range(NEWEST, OLDEST - 1, -1)):
        old = {"Upload-Incomplete": "?1"} if version == INCOMPLETE_UNTIL else {}
        headers = {INTEROP: str(version)} if version else {}
        made = try_creation(site, f"version-{version}", 2, headers=old, version=headers)
        field = "Upload-Incomplete" if version == INCOMPLETE_UNTIL else "Upload-Complete"
        asked = str(version) if version else "none"
        for fields in made.interims:
            same(fields.get(INTEROP, asked), asked, f"{INTEROP} of 104 to a request with {asked}")
        if made.url and (made.interims or (made.answer.ok and field in made.answer.headers)):
            found.append(_Spoken(version, bool(made.interims)))
    return found


@check(
    "ietf-version",
    "ietf: which draft the server implements",
    "clients do not know what the server implements",
    required=False,
)
def interop_version(site: Site) -> None:
    """See the appendix on draft versions: a 104 has the version, and a server without 104 answers some versions.

    The end of the report has what it finds.
    """
    place(site)
    found = spoken(site)
    if not found:
        raise NotOffered("the server answers no creation of any draft")
    site.notes.append(_in_words(found))


def _in_words(found: list[_Spoken]) -> str:
    """Say which interop version the server implements, or if it sends no 104, which ones it answers."""
    own = next((one.version for one in found if one.by_104), None)
    others = _listed([one.version for one in found if one.version != own])
    if own is None:
        return f"The server answers {others}; it sends no 104, which would say the version that it implements"
    said = f"The server implements {_listed([own]) if own else 'the final protocol'}"
    return f"{said}, and also answers {others}" if others else said


def _listed(versions: list[int]) -> str:
    """Return versions with their drafts, the oldest first."""
    numbers = sorted(version for version in versions if version)
    drafts = ", ".join(DRAFTS[number] for number in numbers if number in DRAFTS)
    named = f"interop version{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
    named = (f"{named} (draft {drafts})" if drafts else named) if numbers else ""
    return " and ".join(filter(None, (named, "requests without a version" if 0 in versions else "")))
