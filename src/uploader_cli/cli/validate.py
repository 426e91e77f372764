"""`uploader validate`."""

from typing import Annotated, Any

import typer

from uploader_cli.cli import options as opt


@opt.with_options(f"profile server include exclude follow_links json {opt.OUTPUT} {opt.REQUESTS}")
def validate(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files and directories.", show_default=False)],
    **given: Any,
) -> None:
    """Check with the server whether it would accept these files, without sending them."""
    settings = opt.load(given)
    from uploader_cli.run import rest_commands

    raise typer.Exit(rest_commands.validate(settings, paths))
