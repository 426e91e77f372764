"""`uploader serve`: its options are those of the server."""

import inspect
from typing import Annotated, Any

import typer

from uploader_cli import signals
from uploader_cli.cli.options import among
from uploader_cli.features.demo.needs import need_server
from uploader_server.config import OPTIONS
from uploader_server.options import Option


def serve(**given: Any) -> int:
    """Run the bundled server, with optional faults, until Ctrl-C."""
    need_server("`uploader serve`")
    from uploader_server.__main__ import run_server

    with signals.unwinding():
        return run_server(given, prog="uploader serve")


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = list[str] | None if option.many else str | None if option.metavar else bool
    flag = typer.Option(
        option.flag,
        *option.short,
        metavar=option.metavar or None,
        help=option.help,
        show_default=False,
        autocompletion=among(option.choices),
    )
    default = None if option.metavar else False
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, flag]
    )


serve.__signature__ = inspect.Signature([_parameter(option) for option in OPTIONS])  # type: ignore[attr-defined]
