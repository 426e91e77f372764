"""Checks of what uploads use where a server offers it: packs, the lookup, digests, and parts written in place."""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

from uploader_cli.core import packs
from uploader_cli.core.protocol import as_object, sha256_in
from uploader_cli.features.checks.check import NotOffered, Prevented, Violation, check, precondition
from uploader_cli.features.smoke.expect import answered, header, quoted, said, same, same_bytes
from uploader_cli.features.smoke.sending import ask_for_session, body_of, file_of, open_session, read_back, terms
from uploader_cli.features.smoke.site import Site
from uploader_cli.features.smoke.tus_requests import append, create, offered
from uploader_cli.render.words import plural
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.bodies import pack_form


class SentPack(NamedTuple):
    files: list[tuple[str, bytes]]
    answer: Answer


def _offers(site: Site) -> dict[str, object]:
    with precondition("session", "no session could be created: "):
        return as_object(site.once(ask_for_session).body)


def _pack_offer(site: Site) -> packs.PackOffer:
    offer = packs.parse_offer(_offers(site).get("packs"), site.settings.server)
    if offer is None:
        raise NotOffered("the session response has no packs")
    return offer


def sent_pack(site: Site) -> SentPack:
    """Send a pack of two files, one of them empty, or of one where a session has only one. Use with `once`."""
    files = [file_of(site, "packed"), (file_of(site, "packed-empty")[0], b"")][: site.once(terms).limits.max_files]
    return SentPack(files, _send(site, open_session(site, len(files)), files))


def _send(site: Site, session: str, files: list[tuple[str, bytes]]) -> Answer:
    entries = [(name, len(content), hashlib.sha256(content).hexdigest(), 0) for name, content in files]
    kind, parts = pack_form(packs.manifest(session, entries), [content for _, content in files])
    body = body_of(b"".join(part.data or b"" for part in parts), kind)
    leaves = len(files) if site.may_delete else 0
    key = {"Idempotency-Key": secrets.token_hex(16)}
    answer = site.call("POST", _pack_offer(site).endpoint, body=body, headers=key, leaves=leaves)
    for file in packs.parse_answer(answer.body, len(files)) or () if answer.ok else ():
        if file.stored and file.server_id:
            site.files[file.server_id] = file.location or ""
    if answer.ok:
        site.sessions.discard(session)  # its last file has ended it
    return answer


@check("packs", "many small files are stored by one request", "small files fail, or are sent one by one")
def pack(site: Site) -> str:
    """See docs/extensions.md: each file of a pack is stored, with the bytes that were sent."""
    offer = _pack_offer(site)
    sent = site.once(sent_pack)
    what = f"a pack of {plural(len(sent.files), 'file')}"
    answered(sent.answer, what, 200)
    files = packs.parse_answer(sent.answer.body, len(sent.files))
    if files is None:
        raise Violation(f"files in the answer to {what}", expected="one for each file", got=quoted(sent.answer.body))
    for (name, content), file in zip(sent.files, files, strict=True):
        if not file.stored or not file.server_id or not file.location:
            got = file.error or "no id or location"
            raise Violation(f"{quoted(name)} of {what}", expected="stored, with id and location", got=got)
        same_bytes(site.read(file.location), content, f"{quoted(name)} of {what}, read back")
    return f"{offer.max_files:,} files at most"


@check(
    "lookup",
    "stored files can be looked up",
    "resuming and --skip-existing look up files one by one, and `uploader check` fails",
    rests_on="packs",
)
def lookup(site: Site) -> str:
    """See docs/extensions.md: a stored file with its digest, and a missing one."""
    offer = packs.parse_lookup_offer(_offers(site).get("lookup"), site.settings.server)
    if offer is None:
        raise NotOffered("the session response has no lookup")
    name, content, _ = _packed(site)
    asked = [{"relativePath": name, "size": len(content)}, {"relativePath": f"no-{name}", "size": 1}]
    body = {"category": site.settings.category, "files": asked, "digests": "compute"}
    answer = answered(site.call("POST", offer.endpoint, json=body), "a lookup", 200)
    found = packs.parse_found(answer.body, len(asked))
    if found is None:
        raise Violation("files in the answer to a lookup", expected="one for each file", got=quoted(answer.body))
    there, missing = found
    if there is None:
        raise Violation("a stored file in a lookup", expected="exists: true, with its size", got="not found")
    same(there.size, len(content), "size of a stored file in a lookup", corrupt=True)
    if there.sha256 is not None:
        same(there.sha256, hashlib.sha256(content).hexdigest(), "sha256 of a stored file in a lookup", corrupt=True)
    if missing is not None:
        raise Violation("a missing file in a lookup", expected="exists: false", got="found")
    return f"{offer.max_files:,} files at most"


@check("digest", "the digest of a stored file can be requested", "--verify reads files back", rests_on="packs")
def digest(site: Site) -> None:
    """See docs/extensions.md: `Want-Repr-Digest`."""
    _, content, where = _packed(site)
    what = "HEAD of a stored file with Want-Repr-Digest"
    answer = answered(site.call("HEAD", where, headers={"Want-Repr-Digest": "sha-256=1"}), what, 200)
    value = header(answer, "Repr-Digest", what, "its SHA-256", lambda value: bool(sha256_in(value)))
    same(sha256_in(value), hashlib.sha256(content).hexdigest(), "Repr-Digest of a stored file", corrupt=True)


def _packed(site: Site) -> tuple[str, bytes, str]:
    """Return name, content and path of a file of the pack for other checks. Raises `Prevented` if it is not stored."""
    _pack_offer(site)
    with precondition("packs"):
        sent = site.once(sent_pack)
    files = packs.parse_answer(sent.answer.body, len(sent.files)) if sent.answer.ok else None
    if not files or not files[0].stored or not files[0].location:
        raise Prevented(f"a pack was not stored ({said(sent.answer)})", "packs")
    return (*sent.files[0], files[0].location)


@check("tus-parts-in-place", "tus: parts are written in place", "large files are sent in one part", rests_on="tus-core")
def in_place(site: Site) -> None:
    """See docs/extensions.md: parts of a file that have their place in it, the last one first."""
    offered(site, "concatenation")
    _pack_offer(site)  # servers that offer packs have it
    content, key = file_of(site, "in-place")[1], secrets.token_hex(16)
    half, urls = len(content) // 2, []
    at_once = "creation-with-upload" in offered(site).extensions  # saves calls
    for start, piece in ((half, content[half:]), (0, content[:half])):
        place = {"finalKey": key, "finalLength": str(len(content)), "partOffset": str(start)}
        head = {"Upload-Concat": "partial", "Upload-Length": str(len(piece))}
        url, _ = create(site, f"in-place-{start}", head, piece if at_once else None, metadata=place)
        if not at_once:
            append(site, url, 0, piece, "PATCH of a part in place")
        urls.append(url)
    final = {"Upload-Concat": "final;" + " ".join(reversed(urls))}
    url, answer = create(site, "in-place", final, metadata={"uploadKey": key})
    read_back(site, url, answer, content)
    site.uploads.difference_update(urls)
