"""The command `judge`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from uploader_cli.cli import options as opt


def _situations(incomplete: str) -> list[tuple[str, str]]:
    from uploader_cli.features.tester.judge import PROTOCOLS

    known = [one.check for _, each in PROTOCOLS.values() for one in each]
    return opt.described((check.id, check.description) for check in known)(incomplete)


def judge(
    for_: Annotated[
        str | None,
        opt.option("--for", "CMD", "Run this client in each situation; {url} and {file} are replaced in it."),
    ] = None,
    spoken: Annotated[
        Literal["ietf", "tus"], typer.Option("--protocol", help="The protocol: ietf, or tus for tus 1.0.")
    ] = "ietf",
    only: Annotated[
        list[str] | None,
        opt.option("--only", "ID|GLOB", "Play only these situations; repeatable.", autocompletion=_situations),
    ] = None,
    skip: Annotated[
        list[str] | None,
        opt.option("--skip", "ID|GLOB", "Skip these situations; repeatable.", autocompletion=_situations),
    ] = None,
    list_: Annotated[bool, opt.option("--list", "", "Print the situations and exit.")] = False,
    junit: Annotated[Path | None, opt.option("--junit", "FILE", "Write a JUnit report to FILE.")] = None,
    strict: Annotated[bool, opt.option("--strict", "", "Fail on warnings, too.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="Maximum seconds of the client in a situation.")
    ] = 60,
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port to listen on; 0 is any free one.")
    ] = 0,
    **given: Any,
) -> int:
    """Judge a client of resumable uploads, in situations that a server of this command plays.

    Without --for it prints a URL for each situation, and judges the clients that came when it is interrupted.
    """
    from uploader_cli.features.tester import judge as run

    settings = opt.load(given, need_server=False, ignored=("server", *opt.FOREIGN))
    if list_:
        return run.list_situations(spoken)
    situations = run.chosen(spoken, only or (), skip or ())
    return run.judge(settings, spoken, situations, command=for_, file=junit, strict=strict, seconds=timeout, port=port)
