"""The commands `config` and `completion`."""

import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from uploader_cli import signals
from uploader_cli.cli import options as opt
from uploader_cli.core.masking import MASK, mask
from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.render import columns, use_color
from uploader_cli.render.words import safe
from uploader_cli.settings import (
    OPTIONS,
    Layer,
    Settings,
    config_template,
    profiles,
    user_config_file,
    working_directory,
)
from uploader_cli.settings.values import Header, written_size

SHELLS = ("bash", "zsh", "fish", "powershell")
ACTIONS = ("show", "init", "path")


def config(
    action: Annotated[
        str,
        opt.argument(
            "[show|init|path]",
            "show the effective settings and their sources; init writes a config file with every setting "
            "commented out; path prints the path of the config file.",
            autocompletion=opt.among(ACTIONS),
        ),
    ] = "show",
    force: Annotated[bool, opt.option("--force", "", "With init: overwrite the existing file.")] = False,
    **given: Any,
) -> int:
    """Show the effective settings, or create a config file."""
    if action not in ACTIONS:
        raise UsageError(f"config: unknown action {action!r}", hint=f"use {', '.join(ACTIONS)}")
    used = {"--force": force, "--profile": given["profile"] is not None, "--json": given["json"] is not None}
    for flag, belongs in {"--force": "init", "--profile": "show", "--json": "show"}.items():
        if used[flag] and action != belongs:
            raise UsageError(f"config {action}: {flag} is only for `config {belongs}`", hint="omit it")
    own = user_config_file()
    if own is None:
        raise UsageError("this user has no home directory", hint="set HOME")
    if action == "path":
        typer.echo(own)
        return Exit.OK
    if action == "init":
        return _init(own, config_template(), force=force)
    settings = opt.load(given, need_server=False)
    return _show(settings, own, profiles(working_directory(), own))


def _show(settings: Settings, file: Path, known: Sequence[str]) -> int:
    """Print each setting with its value and source, with `--json` as one object.

    `file` is the user's config file, `known` are the defined profiles.
    """
    if settings.json:
        shown = {
            name: {"value": _value(settings, name), "source": source.kind, "from": safe(source.name)}
            for name, source in ((name, settings.source(name)) for name in OPTIONS)
        }
        body = {
            "file": str(file),
            "profiles": list(known),
            "settings": shown,
            "token_withheld": settings.token_withheld,
            "notes": list(settings.notes),
        }
        sys.stdout.write(json.dumps(body) + "\n")
        return Exit.OK
    there = "" if os.path.exists(file) else " (does not exist; create it with: uploader config init)"
    head = [f"your config file: {safe(str(file))}{there}"]
    head += [f"profiles: {safe(', '.join(known))}"] if known else []
    sys.stdout.write("\n".join([*head, "", *_rows(settings)]) + "\n")
    return Exit.OK


def _rows(settings: Settings) -> Iterator[str]:
    """Format a row for each setting; a source that does not fit goes to a line of its own."""
    width, dim = columns(stream=sys.stdout), use_color(os.environ, is_tty=sys.stdout.isatty())
    names = max(map(len, OPTIONS))
    values = {name: _words(name, _value(settings, name)) for name in OPTIONS}
    column = min(max(map(len, values.values())), 28)
    for name, value in values.items():
        source = settings.source(name)
        where = safe(source.name)
        row = f"{name:<{names}}  {value:<{column}}  {where}"
        if len(row) > width:
            row = f"{name:<{names}}  {value}\n{'':<{min(names + 2, 8)}}{where}"
        yield f"\x1b[2m{row}\x1b[0m" if dim and source.layer is Layer.DEFAULT else row
    if settings.token_withheld:
        yield "the token and secret headers are withheld: only the config of the working directory names the server"


def _value(settings: Settings, name: str) -> Any:
    """Return the value as in the JSON output."""
    value = settings.state_path if name == "state_dir" else getattr(settings, name)
    if OPTIONS[name].secret and name != "proxy":  # of which only the password is masked, as secret headers are
        return MASK if value else None
    return [_plain(item) for item in value] if type(value) is tuple else _plain(value)


def _plain(value: Any) -> Any:
    match value:
        case Header():
            return f"{value.name}: {MASK if value.secret else value.value}"
        case math.inf:
            return "none"
        case None | bool() | int() | float():
            return value
    return mask(str(value))


def _words(name: str, value: Any) -> str:
    match value:
        case None | "" | []:
            return "–"
        case bool():
            return "on" if value else "off"
        case list():
            return safe(", ".join(map(str, value)))
        case float():
            return f"{value:g}"
        case int() if OPTIONS[name].metavar.startswith("SIZE"):
            return written_size(value)
    return safe(str(value))


def _init(file: Path, content: str, *, force: bool) -> int:
    """Create the user's config file, private to the user. Raises `UsageError` if it exists."""
    try:
        if file.exists() and not force:
            raise UsageError(
                f"{file} exists already", hint="edit it, or overwrite it with: uploader config init --force"
            )
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with signals.unwinding():
            handle, temporary = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.resolve().parent)  # private
            try:
                with open(handle, "w", encoding="utf-8") as stream:
                    stream.write(content)
                os.replace(temporary, file.resolve())
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UsageError(f"{file} can't be written: {error.strerror}") from None
    sys.stderr.write(f"{safe(str(file))}: written with every setting commented out\n")
    return Exit.OK


def completion(
    shell: Annotated[str, opt.argument("|".join(SHELLS), "The shell.", autocompletion=opt.among(SHELLS))],
) -> int:
    """Print the shell script for completion."""
    if shell not in SHELLS:
        raise UsageError(f"completion: unknown shell {shell!r}", hint=f"use {', '.join(SHELLS)}")
    from typer.completion import get_completion_script  # type: ignore[attr-defined] # re-exported

    typer.echo(get_completion_script(prog_name="uploader", complete_var="_UPLOADER_COMPLETE", shell=shell))
    return Exit.OK
