"""The command `check`."""

from typing import Annotated, Any

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError


def check(
    paths: Annotated[list[str] | None, opt.argument("[PATH...]", "Files and directories.")] = None,
    size_only: Annotated[bool, opt.option("--size-only", "", "Compare sizes only; quick.")] = False,
    content: Annotated[bool, opt.option("--digest", "", "Compare the content, by SHA-256: the default.")] = False,
    read: Annotated[bool, opt.option("--read", "", "Have the server read all files anew.")] = False,
    **given: Any,
) -> int:
    """Compare local files with those on the server, by content."""
    if size_only and (content or read):
        other = "--digest" if content else "--read"
        raise UsageError(f"--size-only and {other} exclude each other", hint="omit one of them")
    settings = opt.load(given, ignored=("upload_url",))  # an endpoint is refused
    paths = opt.require_paths("check", settings, paths)
    from uploader_cli.features.check import comparison as run

    return run.compare(settings, paths, content=not size_only, read=read)
