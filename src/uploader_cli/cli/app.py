"""The command line: one Typer app; the module of a command is imported when the command is used."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from itertools import takewhile
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.main import get_command

from uploader_cli import __version__
from uploader_cli.cli.options import signature
from uploader_cli.errors import UsageError
from uploader_cli.feature import features, trial
from uploader_cli.settings.model import OPTIONS, SECTIONS
from uploader_cli.settings.spelling import lacking, nearest

_OWN = {
    "upload": "upload",
    "resume": "upload",
    "runs": "upload",
    "watch": "sessions",
    "status": "sessions",
    "cancel": "sessions",
    "delete": "sessions",
    "validate": "sessions",
    "config": "config",
    "completion": "config",
}
"""The commands of the core in their order, with their modules in this package. Each is a function of that name."""
_HIDDEN = {"runs"}
"""Second words for something else: they work, and no help or completion names them."""


def _commands() -> dict[str, Callable[[], Any]]:
    """Return the commands in the order of the help, each with what imports its function."""
    found: dict[str, Callable[[], Any]] = {name: partial(_own, name, module) for name, module in _OWN.items()}
    names = list(found)
    for feature in features():
        for command in feature.commands:
            found[command.name] = partial(feature.load, command.function)
            names.insert(names.index(command.before), command.name)
    return {name: found[name] for name in names}


def _own(name: str, module: str) -> Any:
    return getattr(import_module(f"uploader_cli.cli.{module}"), name)


COMMANDS = _commands()

_APPEARANCE: dict[str, Any] = {
    "rich_markup_mode": None,  # rich would cost --help 60 ms
    "pretty_exceptions_enable": False,  # __main__ reports errors
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 1000},  # the terminal's width
}


class _Command(TyperCommand):
    """A command whose help lists the options by section."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Warn of `--null`, which version 2 will not have."""
        if "--null" in takewhile(lambda word: word != "--", args):
            typer.echo("warning: --null is deprecated: use -0", err=True)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of options after the arguments; a command's own options are in the first one."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Arguments", *SECTIONS)}
        for param in self.get_params(ctx):
            names, text = param.get_help_record(ctx) or ("", "")
            if names:
                title = "Arguments" if isinstance(param, TyperArgument) else getattr(param, "rich_help_panel", "")
                sections[title or "Options"].append((re.sub(r"--(\S+) / --no-\1$", r"--[no-]\1", names), text))
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@cache
def _command(name: str) -> Any:
    alone = typer.Typer(add_completion=False, **_APPEARANCE)
    function = COMMANDS[name]()
    function.__signature__ = signature(function, name)
    alone.command(cls=_Command, hidden=name in _HIDDEN)(function)
    return get_command(alone)


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported on first use."""

    def __getitem__(self, name: str) -> Any:
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(TyperGroup):
    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.commands = _Commands()  # type: ignore[assignment]  # nothing writes to it


app = typer.Typer(
    cls=_Group,
    name="uploader",
    help="Upload files and directories, follow the server's progress, and resume after interruptions.",
    add_completion=False,  # `uploader completion` is the one way to install it
    epilog=f"No server? `{trial()}` runs an upload against a bundled one." if trial() else None,
    no_args_is_help=True,
    **_APPEARANCE,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"uploader {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit; with -v also commit and Python.",
        ),
    ] = False,
) -> None:
    pass


_HABITS = {
    "no such command: 'help'": "uploader --help lists the commands, and uploader COMMAND --help its options",
    "-V: no such option": "uploader --version prints the version",
    **{
        f"{flag}: no such option": "omit it: directories are sent with all they contain"
        for flag in ("-r", "-R", "--recursive")
    },
}
"""Hints by the error, for what other programs understand."""
_REFUSAL: Any = typer.BadParameter.__base__
"""The usage errors of Typer, whose class has no public name."""
_REWORDED = {
    r"No such option: (.*)": r"\1: no such option",
    r"No such command (.*)": r"no such command: \1",
    r"Option '(.*?)' requires an argument": r"\1 needs a value",
    r"Option '(.*?)' does not take a value.*": r"\1 takes no value",
    r"Got unexpected extra argument.*\((.*)\)": r"unexpected argument: \1",
    r"Missing (?:argument|option|parameter) '(.*?)'": r"\1 is missing",
    r"Invalid value for '(.*?)': (.*)": r"\1: \2",
    r"(.*) is not a valid int.*": r"\1 is not a whole number",
    r"(.*) is not in the range (.*)<=x<=(.*)": r"\1 is not from \2 to \3",
    r"(.*) is not in the range x>=(.*)": r"\1 is less than \2",
}


def _usage_error(refusal: Any, words: Sequence[str]) -> UsageError:
    """Return a usage error of Typer in the style of the others; `words` are those of the command line."""
    near = getattr(refusal, "possibilities", None)
    refusal.possibilities = None
    text, _, guess = refusal.format_message().partition(" Did you mean ")
    for pattern, better in _REWORDED.items():
        text = re.sub(f"^{pattern}$", better, text.rstrip("."), flags=re.DOTALL)
    command = "".join(f"{word} " for word in words[:1] if word in COMMANDS)
    see, guess = f"see: uploader {command}--help", near[0] if near else guess.strip("'?")
    if type(refusal).__name__ == "NoSuchOption":
        if takers := _takers(refusal.option_name):
            others = f"{', '.join(takers[:3])}{' …' if len(takers) > 3 else ''}"
            return UsageError(text, hint=f"it is an option of {others} ({see if command else 'after the command'})")
        own = refusal.option_name.removeprefix("--").removeprefix("no-").replace("-", "_")
        if hint := lacking(own):
            return UsageError(text, hint=hint)
        guess = nearest(refusal.option_name, near or [])
    elif text.startswith("no such command") and (hint := lacking(words[0], of="command")):
        return UsageError(text, hint=hint)
    return UsageError(text, hint=_HABITS.get(text) or (f"did you mean {guess}?" if guess else see))


def _takers(flag: str) -> tuple[str, ...]:
    """Return the commands that take an option of the table, in their order."""
    switch = flag.replace("--no-", "--")
    known = ((switch if isinstance(option.default, bool) else flag, option) for option in OPTIONS.values())
    takers = next((option.commands for name, option in known if option.flag == name), ())
    return tuple(name for name in COMMANDS if name in takers)


def run_command(argv: Sequence[str] | None) -> int:
    """Run one command and return its exit code; Ctrl-C (130) is already printed. Raise `UsageError`."""
    if "_UPLOADER_COMPLETE" in os.environ:  # set by the script of `uploader completion`
        from typer.completion import completion_init  # type: ignore[attr-defined] # re-exported

        completion_init()
    try:
        code = app(args=argv, prog_name="uploader", standalone_mode=False)
    except _REFUSAL as refusal:
        if "Usage:" in str(refusal):  # no command: the message is the help
            refusal.show()
            return 2
        raise _usage_error(refusal, sys.argv[1:] if argv is None else argv) from None
    except SystemExit as end:
        code = end.code
    return code if isinstance(code, int) else 0
