"""The commands about sessions and files on the server: `watch`, `status`, `cancel`, `delete`, `validate`."""

import re
from typing import Annotated, Any

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError
from uploader_cli.settings import Invalid, resolve_here
from uploader_cli.settings.values import seconds

Session = Annotated[str, opt.argument("SESSION", "Session ID.", autocompletion=opt.complete_sessions)]


def _begin(session: str) -> str:
    """Return a session ID, or its first characters. Raises `UsageError`."""
    try:
        return opt.valid_uuid(session, "SESSION")
    except UsageError:
        if re.fullmatch(r"[0-9a-f][0-9a-f-]{0,34}", session, re.IGNORECASE):
            return session.lower()
        raise


def watch(
    sessions: Annotated[
        list[str] | None,
        opt.argument(
            "[SESSION...]",
            "Session IDs; of this machine's uploads their first characters. [default: its newest]",
            autocompletion=opt.complete_sessions,
        ),
    ] = None,
    wait: Annotated[
        str, opt.option("--wait", "TIME", "Time to wait until the server knows the sessions. [default: 30]")
    ] = "30",
    web: Annotated[
        bool | None, opt.option("--web", "", "Open the first session on the server's page in a browser instead.")
    ] = None,
    **given: Any,
) -> int:
    """Follow sessions of uploads until they end."""
    wanted = tuple(dict.fromkeys(_begin(session) for session in sessions or ()))
    try:
        patience = seconds(zero=True)(wait)
    except Invalid as error:
        raise UsageError(f"--wait: {error}") from None
    from uploader_cli.run import rest_commands, runs
    from uploader_cli.run import watch as run

    wanted, stored = runs.find_sessions(resolve_here(given, need_server=False, ignored=opt.FOREIGN), wanted)
    settings = opt.load(given, stored=stored, ignored=opt.FOREIGN)
    if web:
        return rest_commands.open_page(settings, wanted[0])
    return run.watch_command(settings, wanted, patience)


def status(session: Session, **given: Any) -> int:
    """Show the status of a session."""
    settings, session = opt.load(given, ignored=opt.FOREIGN), opt.valid_uuid(session, "SESSION")
    from uploader_cli.run import rest_commands as run

    return run.status(settings, session)


def cancel(session: Session, **given: Any) -> int:
    """Cancel a session on the server."""
    settings, session = opt.load(given, ignored=opt.FOREIGN), opt.valid_uuid(session, "SESSION")
    from uploader_cli.run import rest_commands as run

    return run.cancel(settings, session)


def delete(file_id: Annotated[str, opt.argument("FILE_ID", "File ID.")], **given: Any) -> int:
    """Delete a stored file. The server requires a token."""
    settings, file_id = opt.load(given, ignored=opt.FOREIGN), opt.valid_uuid(file_id, "FILE_ID")
    from uploader_cli.run import rest_commands as run

    return run.delete(settings, file_id)


def validate(paths: Annotated[list[str], opt.argument("PATH...", "Files and directories.")], **given: Any) -> int:
    """Ask the server whether it would accept these files."""
    settings = opt.load(given, ignored=opt.FOREIGN)
    from uploader_cli.run import rest_commands as run

    return run.validate(settings, paths)
