"""The commands with few requests: `status`, `cancel`, `delete`, `validate`, `watch --web`."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Mapping, Sequence

from uploader_cli import errors
from uploader_cli.core.events import FileFailed
from uploader_cli.core.names import json_line
from uploader_cli.core.plan import LocalFile, plan_sessions, refusal
from uploader_cli.core.protocol import as_object, number, text
from uploader_cli.exit_status import Exit
from uploader_cli.render.words import plural, safe
from uploader_cli.run.connections import client
from uploader_cli.run.runs import session_secret
from uploader_cli.selection.selecting import select
from uploader_cli.settings import Settings
from uploader_cli.transfer.bodies import content_type
from uploader_cli.transfer.targets import target_of


def status(settings: Settings, session: str) -> int:
    """Print the status of a session: exit 0 while it succeeds, 4 for partial or cancelled, 6 for an unknown one."""
    with client(settings, session) as api:
        body = api.progress_body(session)
    state = text(body.get("overallStatus")) or "unknown"
    listed = body.get("files")
    files = [as_object(item) for item in listed] if isinstance(listed, list) else []
    total, failed = (int(number(body.get(key)) or 0) for key in ("totalFiles", "failedFiles"))
    lines = [f"session {session}: {safe(state)}, {len(files)} of {plural(total, 'file')} seen"]
    for file in files:
        percent = number(file.get("progress"))
        shown = "  – %" if percent is None else f"{percent:3.0f} %"
        name = safe(text(file.get("relativePath")) or text(file.get("originalName")) or "?")
        error = f"  {safe(words)}" if (words := text(file.get("error"))) else ""
        lines.append(f"  {shown}  {safe(text(file.get('status')) or '?'):<10}  {name}{error}")
    _print(settings, body, lines)
    return Exit.OK if state in ("completed", "pending", "uploading") and not failed else Exit.FAILED_FOR_GOOD


def open_page(settings: Settings, session: str) -> int:
    """Open the server's page of a session in a browser. Raises `NotAnUploadServer` if it has none."""
    with client(settings) as api:
        if not api.has_page():
            raise errors.NotAnUploadServer(
                f"{settings.server} has no page for browsers", hint="leave out --web to follow the session here"
            )
    url = f"{settings.server}/#{session}"
    opened = webbrowser.open(url)
    _report(settings, {"url": url, "opened": opened}, [f"{'opened' if opened else 'open this in a browser:'} {url}"])
    return Exit.OK


def cancel(settings: Settings, session: str) -> int:
    """Cancel a session; the server may still store files it has received. Exit 0, too, if all its files are stored.

    Raises `NotYours` without the secret of the session.
    """
    secret = session_secret(settings, session) or settings.given_secret
    with client(settings, session) as api:
        if secret:
            api.resume_session(session, secret)
        try:
            body = api.cancel(session)
        except errors.NotFound:  # also for a session that has ended
            body = api.progress_body(session)
            state = text(body.get("overallStatus"))
            if state not in ("completed", "partial"):
                raise
            words = "completed already" if state == "completed" else "ended already, and some of its files failed"
            _report(settings, body, [f"session {session}: {words}"])
            return Exit.OK if state == "completed" else Exit.FAILED_FOR_GOOD
    note = "files received completely may still be stored; delete them with: uploader delete"
    _report(settings, body, [f"session {session}: cancellation accepted by the server", f"  {note}"])
    return Exit.OK


def delete(settings: Settings, file_id: str) -> int:
    with client(settings) as api:
        body = api.delete(file_id)
    _report(settings, body, [f"file {file_id}: deleted"])
    return Exit.OK


def validate(settings: Settings, paths: Sequence[str]) -> int:
    """Check the files against the server's rules, session by session; exit 4 if one would be refused."""
    found = list(select(settings, paths))
    files = [item for item in found if isinstance(item, LocalFile)]
    refused = [(item.path, [item.message]) for item in found if isinstance(item, FileFailed)]
    total = len(files) + len(refused)
    with client(settings) as api:
        offer, asked = api.health(), list[LocalFile]()
        limits = target_of(settings).terms(offer).limits
        for file in files:
            why = refusal(file, limits)
            if why is None and not file.size:
                continue
            if why is None or (offer.limits is None and why.code == "refused_type"):
                asked.append(file)
            else:
                refused.append((file.path, [why.message]))
        for session in plan_sessions(asked, limits):
            verdicts = as_object(api.validate(session.files, content_type)).get("files")
            for verdict in map(as_object, verdicts if isinstance(verdicts, list) else []):
                index, why_not = number(verdict.get("index")), verdict.get("errors")
                if verdict.get("valid") is not True and index is not None and index < len(session.files):
                    words = [str(item) for item in why_not] if isinstance(why_not, list) else []
                    refused.append((session.files[int(index)].path, words or ["refused"]))
    lines = [f"{safe(path)}: {safe('; '.join(words))}" for path, words in refused]
    count = f"{len(refused)} of {plural(total, 'file')} would be refused"
    lines.append(count if refused else f"the server would accept {'all ' * (total > 1)}{plural(total, 'file')}")
    rows = [{"path": path, "errors": words} for path, words in refused]
    _print(settings, {"valid": not refused, "files": total, "refused": rows}, lines)
    return Exit.FAILED_FOR_GOOD if refused else Exit.OK


def _print(settings: Settings, body: Mapping[str, object], lines: Sequence[str]) -> None:
    """Print the result on stdout: lines, or one JSON object with `--json`."""
    if settings.json:
        sys.stdout.write(json_line(body))
    elif not settings.quiet:
        sys.stdout.write("\n".join(lines) + "\n")


def _report(settings: Settings, body: Mapping[str, object], lines: Sequence[str]) -> None:
    """Say on stderr what was done; with `--json` print one JSON object on stdout."""
    if settings.json or settings.quiet:
        _print(settings, body, lines)
    else:
        sys.stderr.write("\n".join(lines) + "\n")
