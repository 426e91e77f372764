"""The command `import`."""

from typing import Annotated, Any

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError


def import_(
    paths: Annotated[
        list[str] | None, opt.argument("[PATH...]", "Files and directories of all workers, or URLs.")
    ] = None,
    **given: Any,
) -> int:
    """Upload with several processes, or on a Dask cluster."""
    settings = opt.load(given, ignored=("upload_url", *opt.of_others("import")))
    if settings.on is None:
        hint = "give --on local:4 for four processes of this machine, or --on dask://scheduler:8786"
        raise UsageError("an import needs a place to run", hint=hint)
    paths = opt.require_paths("import", settings, paths)
    if "-" in paths:
        raise UsageError("an import can't send standard input", hint="use: uploader upload -")
    from uploader_cli.run.commands import upload_command

    return upload_command(settings, paths)
