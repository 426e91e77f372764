"""The command `doctor`."""

from typing import Annotated, Any

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError


def doctor(
    session: Annotated[str | None, opt.option("--session", "ID", "Check this session as well.")] = None,
    new_session: Annotated[bool, opt.option("--new-session", "", "Create, join and cancel a session.")] = False,
    new_upload: Annotated[bool, opt.option("--new-upload", "", "Create and delete an upload by tus.")] = False,
    **given: Any,
) -> int:
    """Diagnose the connection to the server and suggest fixes."""
    if session is not None and new_session:
        raise UsageError("--session and --new-session exclude each other", hint="omit one of them")
    settings = opt.load(given, ignored=("upload_url",))
    if settings.tus_endpoint and (session is not None or new_session):
        option = "--new-session" if new_session else "--session"
        raise UsageError(f"{option} and --tus-endpoint exclude each other", hint="a tus server has no sessions")
    asked = opt.valid_uuid(session, "--session") if session is not None else None
    from uploader_cli.features.doctor import examination as run

    return run.doctor(settings, session=asked, new_session=new_session, new_upload=new_upload)
