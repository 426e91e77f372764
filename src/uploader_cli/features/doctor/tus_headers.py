"""Step about what proxies change of tus: its headers, the URLs of uploads, HEAD and DELETE."""

from __future__ import annotations

from urllib.parse import urlsplit

from uploader_cli.core.capabilities import TUS_VERSION, Capabilities, encode_metadata, endpoint_for, names_files
from uploader_cli.core.origins import concealed, resolved, trusts
from uploader_cli.features.checks.check import Finding, check, failed, passed, skipped, warning
from uploader_cli.features.doctor.context import DoctorContext
from uploader_cli.features.doctor.uploads import followed, refusal
from uploader_cli.transfer.answers import Answer, answer_error, is_blocked

SIGNED = {"Tus-Resumable": TUS_VERSION}
ALL_HEADERS = "Let every proxy before the server pass the headers that begin with Upload- and Tus-, in both directions."
OWN_ADDRESS = "Let the proxy send Host and X-Forwarded-Proto, and the server use them, or tell it its public address."
PROBE = "uploader-doctor"


@check("tus_headers", "tus headers", rests_on="tus")
def tus_headers(context: DoctorContext) -> Finding:
    """Announce a file above the server's limit, which it refuses; with `--new-upload` create an upload, and delete it.

    The refusal shows whether `Upload-Length` arrives; only the answers about an upload show the rest.
    """
    tus = context.tus
    if tus is None or tus.ietf:
        return skipped("because the server offers no uploads by tus 1.0")
    if context.new_upload:
        return _created(context, tus)
    if context.max_size is None or names_files(tus.endpoint):
        return skipped("because only an upload shows them: --new-upload creates one and deletes it")
    answer = followed(context, "POST", tus.endpoint, headers=SIGNED | {"Upload-Length": str(context.max_size + 1)})
    if answer.ok:
        _delete(context, tus, _url(context, tus, answer))
    return _loss(context, tus, answer) or passed("Upload-Length arrives")


def _created(context: DoctorContext, tus: Capabilities) -> Finding:
    metadata = {"filename": PROBE} | ({"sessionId": context.opened} if context.opened else {})
    headers = SIGNED | {"Upload-Length": "1", "Upload-Metadata": encode_metadata(metadata)}
    answer = followed(context, "POST", endpoint_for(tus.endpoint, PROBE), headers=headers)
    if not answer.ok:
        cause = f"the creation of an upload is refused: {answer_error(answer)}"
        hint = "The server may need --preset or --metadata; `uploader upload` takes them."
        return _loss(context, tus, answer) or refusal(answer) or warning(cause, hint, http_status=answer.status)
    if not answer.headers.get("Location"):
        return failed(f"the answer to a creation has no Location ({answer.status})", ALL_HEADERS)
    try:
        url = _url(context, tus, answer)
    except ValueError as error:
        return failed(f"the URL of a new upload can't be used: {error}", OWN_ADDRESS)
    if not trusts(tus.endpoint, url):
        return warning(f"new uploads are at another server, {concealed(url)}, which gets no token", OWN_ADDRESS)
    found = context.call("HEAD", url, headers=SIGNED)
    deleted = _delete(context, tus, url)
    left = "" if deleted is not None and deleted.ok else "; the upload stays on the server, which does not delete any"
    return _change(context, tus, answer, found, deleted) or passed(f"they pass in both directions{left}")


def _change(
    context: DoctorContext, tus: Capabilities, answer: Answer, found: Answer, deleted: Answer | None
) -> Finding | None:
    """Return the finding for what a proxy has changed in the answers about an upload.

    Uploads to a tus endpoint do without some of its headers: not without the offset of bytes sent with a creation.
    """
    lenient, said = bool(context.settings.tus_endpoint), answer.headers["Location"].strip()
    if found.ok and "Upload-Offset" not in found.headers:
        cause = f"answers arrive without Upload-Offset (HEAD: {found.status})"
        if lenient and not tus.creates_with_upload:
            return warning(f"{cause}: uploads can't be resumed", ALL_HEADERS)
        return failed(cause, ALL_HEADERS)
    if not found.ok:
        cause = f"HEAD of a new upload is answered with {found.status}: uploads can't be resumed"
        return warning(cause, "Let every proxy before the server pass HEAD, and the path of uploads.")
    if tus.endpoint.startswith("https:") and said.startswith("http:"):
        return warning("new uploads have URLs with http; uploads use https", OWN_ADDRESS)
    if "Tus-Resumable" not in answer.headers:
        return (warning if lenient else failed)("answers arrive without Tus-Resumable", ALL_HEADERS)
    if deleted is not None and is_blocked(deleted):
        cause = f"a proxy or firewall blocks DELETE ({deleted.status}): uploads that are given up stay on the server"
        return warning(cause, "Let DELETE pass.")
    return None


def _loss(context: DoctorContext, tus: Capabilities, answer: Answer) -> Finding | None:
    """Return the finding if the server misses a length, and says the same where there is none."""
    if answer.status != 411 and not (400 <= answer.status < 500 and "length" in answer.sentence.lower()):
        return None
    without = followed(context, "POST", endpoint_for(tus.endpoint, PROBE), headers=SIGNED)
    if (without.status, without.sentence) != (answer.status, answer.sentence):
        return None
    cause = f"requests to {tus.endpoint} arrive without Upload-Length ({answer.status})"
    return failed(cause, ALL_HEADERS, http_status=answer.status)


def _url(context: DoctorContext, tus: Capabilities, answer: Answer) -> str:
    """Return the URL of a new upload; raise `ValueError`. That of a server with sessions is on the same server."""
    location = answer.headers.get("Location", "")
    _, found, path = ("", "", "") if context.settings.tus_endpoint else location.partition(urlsplit(tus.endpoint).path)
    return resolved(answer.url, found + path or location)


def _delete(context: DoctorContext, tus: Capabilities, url: str) -> Answer | None:
    return context.call("DELETE", url, headers=SIGNED) if tus.terminates else None
