"""What a server offers, and what its answers tell: known once the server is met, and the same for the whole run."""

from __future__ import annotations

from uploader_cli.core.capabilities import Capabilities
from uploader_cli.core.packs import LookupOffer, PackOffer
from uploader_cli.core.plan import ASSUMED, Limits
from uploader_cli.core.record import Record


class Offer(Record, frozen=True):
    """What a server has announced: in `/health`, in the answer that opens a session, or in that to OPTIONS."""

    limits: Limits | None = None
    tus: Capabilities | None = None
    packs: PackOffer | None = None
    lookup: LookupOffer | None = None


class Terms(Record, frozen=True):
    """What a run uses of the `offer` of a server, and what the answers of this server tell.

    The defaults are those of a server with sessions.
    """

    offer: Offer = Offer()
    limits: Limits = ASSUMED
    tus: Capabilities | None = None  # None in batch mode
    packs: PackOffer | None = None
    lookup: LookupOffer | None = None
    checksum: str | None = None  # the algorithm for chunks
    sessions: bool = True
    """Files belong to sessions; locations are paths below the server's root, and equal files may be stored once."""
    keys: bool = True
    """The server finds an upload by its key, also the one that parts were joined to, and deletes the parts."""
    gets_keys: bool = True
    """Uploads are created with a key and with what is known of the file; else only with the metadata of the user."""
    tells_stored: bool = True
    """An upload with the full offset is stored, with exactly the bytes that were sent.

    Otherwise only a success of the request that completes it tells that, or a reading.
    """
    strict: bool = True
    """All answers have the headers that the protocol demands: what lacks them was not answered by the server."""
    may_forget: bool = False
    """The server may delete an upload once it is complete."""
    trusts_checksums: bool = True
    """The server compares every checksum that it accepts: some announce checksums, and compare none."""
    tells_missing: bool = False
    """The server gives out stored files, and no others."""
    parts: bool = False
    """A file may be sent in several uploads, which the server joins."""
    describes_parts: bool = True
    """Each part has the metadata of the file, where the server has no `keys`."""
    empty_at_creation: bool = False
    """The creation of an upload stores an empty file, and no PATCH follows. (In the IETF's protocol answers say so.)"""
    falls_back: bool = False
    """Files whose uploads a proxy blocks are sent in batch mode."""

    @property
    def protocol(self) -> str:
        """The protocol of files that are not packed: `batch`, `tus` or `ietf`."""
        return "batch" if self.tus is None else "ietf" if self.tus.ietf else "tus"
