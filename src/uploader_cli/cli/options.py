"""How the table of options becomes parameters of the commands, their completion, and how values become `Settings`.

Values stay text here: `settings` parses flags, environment and config files with the same code.
"""

import inspect
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import typer

from uploader_cli.errors import UploaderError, UsageError
from uploader_cli.feature import Feature, features
from uploader_cli.settings import (
    OPTIONS,
    Option,
    Settings,
    profiles,
    resolve_here,
    user_config_file,
    working_directory,
)

FOREIGN = ("tus_endpoint", "upload_url")
"""What the commands about sessions ignore: servers without sessions."""


def argument(metavar: str, help: str, **more: Any) -> Any:  # noqa: A002 - as in Typer
    return typer.Argument(metavar=metavar, help=help, show_default=False, **more)


def option(flag: str, metavar: str, help: str, **more: Any) -> Any:  # noqa: A002 - as in Typer
    """Declare an option of one command; `metavar` is empty for a switch."""
    return typer.Option(flag, metavar=metavar or None, help=help, show_default=False, **more)


def signature(function: Callable[..., int], command: str) -> inspect.Signature:
    """Return the signature of a command: its own parameters, and in place of `**given` the options that it takes."""
    own = list(inspect.signature(function).parameters.values())
    if own and own[-1].kind is inspect.Parameter.VAR_KEYWORD:
        own[-1:] = [_parameter(option) for option in OPTIONS.values() if command in option.commands]
    return inspect.Signature(own)


@cache  # several commands have most options in common
def _parameter(option: Option) -> inspect.Parameter:
    """Declare an option of the table; it is None if it is not used."""
    count = option.name == "verbose"
    kind: Any = int if count else bool if isinstance(option.default, bool) else list[str] if option.many else str
    default = "on" if option.default is True else f"{option.default:g}" if type(option.default) in (int, float) else ""
    default = default or (option.default if isinstance(option.default, str) else "")
    text, _, words = option.help.removesuffix("]").partition(" [default: ")
    default = words or default
    shown = f"; default: {default}" if default and not count else ""
    flag = typer.Option(
        f"{option.flag}/--no-{option.flag[2:]}" if kind is bool else option.flag,
        *option.short.split(),
        metavar=option.metavar or None,
        help=f"{text} [env: {option.variable}{shown}]",
        show_default=False,
        count=count,
        autocompletion=_COMPLETE.get(option.name) or (among(option.names) if option.names else None),
        rich_help_panel=option.section,
    )
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, flag]
    )


def among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a completer for the `names` that start with the typed text. The shell completes file names itself."""
    known = tuple(names)
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]


def described(names: Iterable[tuple[str, str]]) -> Callable[[str], list[tuple[str, str]]]:
    """Return a completer as `among`, of names with what some shells show beside them."""
    known = tuple(names)
    return lambda incomplete: [pair for pair in known if pair[0].startswith(incomplete)]


def configured(find: Callable[[Path, Path | None], list[str]]) -> Callable[[str], list[str]]:
    """Return a completer for names of the config files; none if a file is invalid, which the command itself reports."""

    def complete(incomplete: str) -> list[str]:
        try:
            return among(find(working_directory(), user_config_file()))(incomplete)
        except (UploaderError, OSError):
            return []

    return complete


def _of_feature(feature: Feature, find: str, *where: Path | None) -> list[str]:
    found: list[str] = feature.load(find)(*where)
    return found


def _journaled(find: str) -> Callable[[str], list[tuple[str, str]]]:
    """Return a completer for the IDs that a function of `run/runs` finds; none if the journal can't be read."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        from uploader_cli.run import runs

        try:
            return described(getattr(runs, find)())(incomplete)
        except (UploaderError, OSError):
            return []

    return complete


complete_runs, complete_sessions = _journaled("resumable_ids"), _journaled("session_ids")
_COMPLETE = {"profile": configured(profiles)}
for _feature in features():
    for _option in _feature.options:
        if _option.completes:
            _COMPLETE[_option.name] = configured(partial(_of_feature, _feature, _option.completes))


def of_others(command: str) -> list[str]:
    """Return the options of features that a command does not take, but for those about a tus server.

    It refuses those with a phase, or has that phase.
    """
    own = [one.name for feature in features() if not feature.phase for one in feature.options if not one.tus_only]
    return [name for name in own if command not in OPTIONS[name].commands]


def load(given: Mapping[str, object], **how: Any) -> Settings:
    """Resolve the settings of a command; notes about ignored values go to stderr, unless `--quiet`."""
    settings = resolve_here(given, **how)
    if settings.notes:
        from uploader_cli.run.views import print_notes

        print_notes(settings)
    return settings


def require_paths(command: str, settings: Settings, paths: list[str] | None) -> list[str]:
    """Return the paths of a command. Raises `UsageError` if there is neither one nor a list."""
    if not paths and settings.from_file is None:
        usage = f"uploader {command} PATH…"
        hint = f"give files or directories: {usage}, or a list: --from-file FILE (see: uploader {command} --help)"
        raise UsageError("no path given", hint=hint)
    return paths or []


def valid_uuid(value: str, what: str) -> str:
    """Return `value` as a canonical UUID, the form of session and file IDs. Raises `UsageError`."""
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise UsageError(
            f"{what}: {value!r} is not an ID", hint="an ID looks like 3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b"
        ) from None
