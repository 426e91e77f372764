"""Delete what the checks created on the server, and report what can't be deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.result import Finding, check, skipped
from uploader_cli.checks.smoke.expect import OutOfCalls, Violation, answered, said
from uploader_cli.core.tus import VERSION
from uploader_cli.render.words import plural

if TYPE_CHECKING:
    from uploader_cli.checks.smoke.site import Site

NO_TOKEN = "files can't be deleted without a token: set one with --token-file"  # noqa: S105 - a sentence
GONE = (404, 410)


@check("clean-up", "what the checks created can be deleted", "files uploaded by mistake stay")
def clean_up(site: Site) -> Finding | str:
    """See docs/protocol.md section 1 (cancel, `DELETE`) and tus 1.0 (termination)."""
    paths = list(site.files.values())
    sweep(site)
    if site.undeleted:
        got = "; ".join(site.undeleted[:3])
        raise Violation("deleting what the checks created", expected="everything deleted", got=got)
    if site.unowned:
        return skipped(NO_TOKEN)
    for path in filter(None, paths):
        answered(site.call("HEAD", path), "HEAD of a file that was deleted", *GONE)
    return f"{plural(len(paths), 'file')} removed"


def sweep(site: Site) -> None:
    """Delete what is left; what can't be deleted is added to `undeleted`. Can be called again."""
    site.cleaning = True
    while site.uploads:
        url = site.uploads.pop()
        _remove(site, f"the tus upload {url}", "DELETE", url, {"Tus-Resumable": VERSION})
    while site.sessions:
        session = site.sessions.pop()
        _remove(site, f"session {session}", "POST", f"/api/upload/cancel/{session}")
    while site.files:
        file, path = site.files.popitem()
        name = file_name(file, path)
        if site.may_delete:
            _remove(site, name, "DELETE", f"/api/upload/file/{file}")
        else:
            site.unowned.append(name)


def file_name(file: str, path: str) -> str:
    """Return the path and ID of a stored file for display."""
    return f"{path} (file {file})" if path else f"file {file}"


def _remove(site: Site, what: str, method: str, where: str, headers: dict[str, str] | None = None) -> None:
    why = ""
    try:
        if site.gone:
            why = "the server no longer answers"
        elif not (answer := site.call(method, where, headers=headers)).ok and answer.status not in GONE:
            why = said(answer)
    except OutOfCalls:
        why = "no calls left"
    except errors.UploaderError as error:
        if isinstance(error, errors.Unauthorized) and not site.may_delete:
            site.unowned.append(what)
        else:
            why = str(error)
    if why:
        site.undeleted.append(f"{what}: {why}")
