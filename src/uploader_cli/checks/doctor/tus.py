"""Check the tus endpoint, and whether requests as large as a chunk reach the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.checks import body_limit as limit
from uploader_cli.checks.check import Finding, check, failed, passed, skipped, warning
from uploader_cli.checks.doctor.sessions import USED_UP, refusal
from uploader_cli.core.protocol import as_object, parse_limits
from uploader_cli.core.tus import VERSION, capabilities_of, unknown_upload
from uploader_cli.render.words import size
from uploader_cli.transfer.api import is_blocked, is_tus
from uploader_cli.transfer.http import redirect_target

if TYPE_CHECKING:
    from uploader_cli.checks.doctor.context import Context


@check("tus", "tus endpoint", rests_on="polling")
def endpoint(context: Context) -> Finding:
    """Ask the endpoint of the server's `/health`, or of `--tus-endpoint`, for its capabilities."""
    where = context.endpoint
    if where is None:
        return skipped("because the server offers no resumable uploads")
    if context.limited is not None:
        return skipped(USED_UP)
    options = answer = context.call("OPTIONS", where)
    if not is_tus(answer):  # a gateway may answer OPTIONS
        answer = context.call("HEAD", unknown_upload(where), headers={"Tus-Resumable": VERSION})
    target = redirect_target(answer)
    if target is not None:
        return failed(f"the tus endpoint redirects to {target}", f"Use that URL in {context.option}.")
    if not is_tus(answer):
        cause = f"{where} does not answer as a tus server ({answer.status})"
        return refusal(answer) or failed(cause, _reach(context), http_status=answer.status)
    if options.status in (404, 410):
        return failed(f"{where} is not the endpoint of the tus server ({options.status})", _reach(context))
    try:
        context.tus = capabilities_of(options.headers, where)
    except ValueError as error:
        return failed(f"{where} is of another version: {error}", "Use a server with tus 1.0.")
    offered = sorted(context.tus.extensions)
    return passed(f"{where} offers {', '.join(offered) or 'no extensions'}", endpoint=where, extensions=offered)


def _reach(context: Context) -> str:
    if context.settings.tus_endpoint:
        return f"Check the host, port and path in {context.option}; a proxy or another web site may answer instead."
    return "Let the proxy before the server pass this path with all methods."


@check("body_limit", "body limit", rests_on="tus", required=False)
def body_limit(context: Context) -> Finding:
    """Announce a chunk for an unknown upload, or without tus a batch; nothing is stored."""
    if context.limited is not None:
        return skipped(USED_UP)
    found = limit.find(context.call, context.tus, most=_own_limit(context), round_trip=context.connect_ms / 1000)
    details = {"refused_bytes": found.refused, "passed_bytes": found.passes}
    if found.refused:
        fitting = f", {size(found.passes)} pass" if found.passes else ""
        hint = "until then larger files fail" if context.tus is None else "until then uploads use smaller requests"
        cause = f"a proxy refuses requests of {size(found.refused)} (413){fitting}"
        return warning(cause, f"{limit.REMEDY}; {hint}.", **details)
    answer = found.answer
    if answer is not None and answer.status in (401, 429) and (refused := refusal(answer)) is not None:
        return refused
    if answer is not None and context.tus is not None and is_blocked(answer):
        cause = f"a proxy or firewall blocks PATCH ({answer.status})"
        hint = "Let PATCH pass; until then uploads send POST with X-HTTP-Method-Override."
        return warning(cause, hint, http_status=answer.status)
    return passed(f"requests of {size(found.passes)} pass", **details)


def _own_limit(context: Context) -> int | None:
    if context.tus is not None and context.tus.max_size is not None:
        return context.tus.max_size
    limits = parse_limits(as_object(context.health.answer.body).get("limits")) if context.health is not None else None
    return limits.max_file_size if limits is not None else None
