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

    `tus` is None in batch mode; `packs` and `lookup` are None where they are not used. `checksum` is the algorithm for
    chunks, or None. The defaults are those of a server with sessions.

    `sessions`: files belong to sessions; their locations are paths below its root, and those that are equal may be
    stored once. `keys`: it finds an upload by its key, also the one that parts were joined to, and deletes the parts.
    `tells_stored`: an upload with the full offset is stored, with exactly the bytes that were sent; otherwise only a
    success of the request that completes it, or a reading, tells that. `strict`: its answers have all headers that the
    protocol demands; what lacks them was not answered by it. `may_forget`: it may delete an upload once it is complete.
    `trusts_checksums`: it compares every checksum that it accepts. `tells_missing`: it gives out stored files, and no
    others. `parts`: it may get a file in several uploads. `empty_at_creation`: the creation of an upload stores an
    empty file, and no PATCH follows; in the IETF's protocol an answer says so. `falls_back`: files whose uploads a
    proxy blocks are sent in batch mode.
    """

    offer: Offer = Offer()
    limits: Limits = ASSUMED
    tus: Capabilities | None = None
    packs: PackOffer | None = None
    lookup: LookupOffer | None = None
    checksum: str | None = None
    sessions: bool = True
    keys: bool = True
    tells_stored: bool = True
    strict: bool = True
    may_forget: bool = False
    trusts_checksums: bool = True
    tells_missing: bool = False
    parts: bool = False
    empty_at_creation: bool = False
    falls_back: bool = False

    @property
    def protocol(self) -> str:
        """The protocol of files that are not packed: `batch`, `tus` or `ietf`."""
        return "batch" if self.tus is None else "ietf" if self.tus.ietf else "tus"

    @property
    def compares(self) -> bool:
        """Whether a checksum that the server accepts verifies the bytes.

        Some servers announce checksums and compare none. tus 1.0 does not name CRC-32C: the bundled server has it, and
        compares it also at its tus endpoint.
        """
        return self.trusts_checksums or self.checksum == "crc32c"
