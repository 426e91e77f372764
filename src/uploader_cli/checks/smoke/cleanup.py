"""Delete what the checks created on the server, and report what can't be deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.smoke.assertions import answered, said
from uploader_cli.checks.smoke.verdicts import Needless, OutOfCalls, Violation
from uploader_cli.core.tus import VERSION
from uploader_cli.render.words import plural

if TYPE_CHECKING:
    from uploader_cli.checks.smoke.site import Site
    from uploader_cli.transfer.http import Answer

NO_TOKEN = "files can't be deleted without a token: set one with --token-file"  # noqa: S105 - a sentence
GONE = (404, 410)


def clean_up(site: Site) -> str:
    """Delete what the checks created (docs/protocol.md section 1: cancel, `DELETE`; tus 1.0: termination)."""
    files = list(site.made.files)
    sweep(site)
    if site.made.left:
        raise Violation(
            "deleting what the checks created", expected="everything deleted", got="; ".join(site.made.left[:3])
        )
    if site.made.unowned:
        raise Needless(NO_TOKEN)
    for file in files:
        if file.location:
            answered(site.call("HEAD", file.location), "HEAD of a file that was deleted", *GONE)
    return f"{plural(len(files), 'file')} removed"


def sweep(site: Site) -> None:
    """Delete what is left; what can't be deleted is added to `made.left`. Can be called again."""
    made, site.cleaning = site.made, True
    while made.uploads:
        url = made.uploads.pop()
        _remove(site, f"the tus upload {url}", "DELETE", url, {"Tus-Resumable": VERSION})
    while made.sessions:
        session = made.sessions.pop()
        _remove(site, f"session {session}", "POST", f"/api/upload/cancel/{session}")
    while made.files:
        file = made.files.pop()
        if site.may_delete:
            _remove(site, str(file), "DELETE", f"/api/upload/file/{file.id}")
        else:
            made.unowned.append(str(file))


def _remove(site: Site, what: str, method: str, where: str, headers: dict[str, str] | None = None) -> None:
    if site.gone:
        site.made.left.append(f"{what}: the server no longer answers")
        return
    try:
        answer: Answer = site.call(method, where, headers=headers)
    except OutOfCalls:
        site.made.left.append(f"{what}: no calls left")
    except errors.Unauthorized as error:
        if site.may_delete:
            site.made.left.append(f"{what}: {error}")
        else:
            site.made.unowned.append(what)
    except errors.UploaderError as error:
        site.made.left.append(f"{what}: {error}")
    else:
        if not answer.ok and answer.status not in GONE:
            site.made.left.append(f"{what}: {said(answer)}")
