"""`uploader delete`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt


@opt.with_options(f"profile server json {opt.OUTPUT} {opt.REQUESTS}")
def delete(
    file_id: Annotated[str, typer.Argument(metavar="FILE_ID", help="File ID.", show_default=False)],
    **given: Any,
) -> None:
    """Delete a stored file. The server requires a token."""
    settings, file_id = opt.load(given), opt.valid_uuid(file_id, "FILE_ID")
    from uploader_cli.run import rest_commands

    raise typer.Exit(rest_commands.delete(settings, file_id))
