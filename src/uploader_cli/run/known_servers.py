"""The limits and offers of each server at its last use: what is planned by them needs no request.

See docs/protocol.md section 3.12.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from uploader_cli.core.capabilities import Capabilities, parse_capabilities
from uploader_cli.core.packs import LookupOffer, PackOffer, parse_offer
from uploader_cli.core.plan import Limits
from uploader_cli.core.protocol import as_object, number, parse_limits
from uploader_cli.core.record import Record
from uploader_cli.core.terms import Offer
from uploader_cli.settings.places import user_state_directory

MOST_SERVERS = 100
"""Maximum stored servers."""


class KnownServer(Record, frozen=True):
    """What a server offers, its limits included."""

    offer: Offer
    chunk: int | None = None
    """Maximum bytes of a chunk, known from a 413 (`ChunkSize.limit`)."""

    @property
    def lookup(self) -> int:
        """Maximum files in one lookup request; 1 without a lookup."""
        return self.offer.lookup.max_files if self.offer.lookup is not None else 1


def recall(server: str) -> KnownServer | None:
    """Return what is known of `server` (its URL, or that of a tus endpoint); None if nothing is.

    Of its lookup that is the maximum number of files.
    """
    known = as_object(_servers(_cache()).get(server))
    limits = parse_limits(known)
    if limits is None:
        return None
    chunk, most = number(known.get("chunk")), int(number(known.get("lookup")) or 1)
    tus, packs = parse_capabilities(known.get("tus"), server), parse_offer(known.get("packs"), server)
    offer = Offer(limits, tus, packs, LookupOffer("", most) if most > 1 else None)
    return KnownServer(offer, int(chunk) if chunk is not None else None)


def remember(server: str, seen: KnownServer) -> None:
    """Store `seen` for `server`, if it has told its limits.

    A state directory that can't be written is no error: the next run asks again.
    """
    offer, path = seen.offer, _cache()
    if offer.limits is None:
        return
    known = _servers(path)
    entry = _wire_form(offer.limits) | {"chunk": seen.chunk, "lookup": seen.lookup}
    entry |= {name: _wire_form(part) for name, part in (("tus", offer.tus), ("packs", offer.packs)) if part}
    if known.pop(server, None) == entry:
        return
    known[server] = entry
    newest = dict(list(known.items())[-MOST_SERVERS:])
    from uploader_cli.report import output_file

    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        output_file.write(path, [json.dumps(newest)], secrets.token_hex(8), sync=False)


def _wire_form(value: Limits | Capabilities | PackOffer) -> dict[str, object]:
    """Return the fields as a server's responses name them: `max_files` is `maxFiles`."""
    fields: dict[str, object] = {}
    for name, item in asdict(value).items():
        first, *rest = name.split("_")
        fields[first + "".join(map(str.title, rest))] = sorted(item) if isinstance(item, frozenset) else item
    return fields


def _servers(path: Path) -> dict[str, object]:
    with suppress(OSError, ValueError):
        return as_object(json.loads(path.read_text(encoding="utf-8")))
    return {}


def _cache() -> Path:
    return (user_state_directory() or Path(os.devnull)) / "limits.json"
