"""What a client did, as the judges of both protocols ask for it. Without an answer they raise `NotOffered`."""

from __future__ import annotations

from uploader_cli.features.checks.check import NotOffered, Violation
from uploader_cli.features.tester.http_server import Request
from uploader_cli.features.tester.play import Played, Turn

CUT = Turn("transfer", keep=0.5, cut="midway")
"""The connection is lost in the middle of the content."""


def shown(request: Request) -> str:
    return f"{request.method} with {len(request.content)} bytes"


def creation(played: Played) -> Request:
    """Return the first request that creates an upload by the protocol."""
    found = next((one for one in played.creations if played.mark.lower() in one.fields), None)
    if found is None:
        raise NotOffered(f"the client sends no {played.mark}")
    return found


def appends(played: Played) -> list[Request]:
    """Return the requests that append, at least one."""
    creation(played)
    if not (found := played.appends):
        raise NotOffered("the client does not append")
    return found


def answered(played: Played, *statuses: int) -> Request:
    """Return the first append that got one of these answers."""
    found = next((one for one in appends(played) if one.status in statuses), None)
    if found is None:
        raise NotOffered("the client does not append")
    return found


def lost(played: Played) -> Request:
    """Return the first request with content."""
    creation(played)
    found = next((one for one in played.requests if one.content), None)
    if found is None:
        raise NotOffered("the client sends no content")
    return found


def resumed(played: Played) -> list[Request]:
    """Return the requests after that one, of which one is for an upload."""
    found = [one for one in played.after(lost(played)) if one.method != "OPTIONS"]
    if not any(one.upload for one in found):
        raise NotOffered("the client does not resume")
    return found


def after_query(played: Played) -> list[Request]:
    """Return the requests after the first that asks for the offset."""
    query = next((one for one in resumed(played) if one in played.queries), None)
    if query is None:
        raise NotOffered("the client does not ask for the offset")
    return played.after(query)


def continues(played: Played, at: int) -> None:
    """Raise `Violation` if the first append after the query is not at this offset, with the bytes from there."""
    append = next((one for one in after_query(played) if one.method == "PATCH"), None)
    if append is None:
        raise NotOffered("the client does not append")
    offset = append.number("upload-offset")
    if offset != at:
        raise Violation("the offset of the append", expected=str(at), got=str(offset))
    if not played.content.startswith(bytes(append.content), at):
        raise Violation(f"the content of the append at {at}", expected="bytes from there", got="others", corrupt=True)
