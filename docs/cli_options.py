"""Update what follows from the table of options: the tables of docs/commands, and types of the library.

`python docs/cli_options.py`. Flags, defaults and the order are generated, descriptions of the
pages are kept. A new option gets its help text as description.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from typer.main import get_command

from uploader_cli.cli.app import app
from uploader_cli.feature import Feature, exported, features
from uploader_cli.settings import OPTIONS
from uploader_cli.settings.keywords import (
    FEATURE_OF,
    FEATURE_OF_ACTION,
    FEATURE_OF_COMMAND,
    FEATURE_OF_FORMAT,
    FEATURE_OF_SOURCES,
)
from uploader_cli.settings.model import SECTIONS, Settings

CLIENT = Path(__file__).parents[1] / "src/uploader_cli"
KEYWORDS, TYPED = CLIENT / "settings/keywords.py", CLIENT / "features/typed.py"
PUBLIC = CLIENT / "features/public.py"
DOCS = Path(__file__).parent
SHARED_PAGES = dict.fromkeys(("status", "cancel", "delete"), "commands/sessions.md") | {
    "smoke": "smoke.md",
    "judge": "tester/index.md",
    "presets": "tus-servers.md",
}
"""The pages of commands that have none of their own."""
COMMANDS: dict[str, Any] = {
    name: command
    for name, command in get_command(app).commands.items()
    if not command.hidden  # type: ignore[attr-defined]
}
_WIDTH = 120


def page_of(name: str) -> Path:
    """Return the page that describes a command."""
    return DOCS / SHARED_PAGES.get(name, f"commands/{name}.md")


def section_of(name: str, text: str) -> str:
    """Return the part of its page that describes a command: to the next heading of the same rank, or a command's."""
    found = re.search(rf"^(#+) `uploader {name}`\n.*?(?=^\1 |^#+ `uploader |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no heading of {name}"
    return found[0]


def updated(name: str, text: str) -> str:
    """Return the section of a command with current tables."""
    if name == "serve":  # its defaults are those of the server
        return text
    command = COMMANDS[name]
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(--[\w-]+)`.* \| ([^|\n]*?) \|$", text, re.MULTILINE)}
    options = [param for param in command.params if param.param_type_name == "option"]
    if name == "upload":
        return _replaced(text, r"\| option \| default .*?\n(?=\n(?![*|]))", _upload(options, rows))
    own = [param for param in options if param.name not in OPTIONS or f"--{param.name}".replace("_", "-") in rows]
    shared = [
        f"`{param.opts[0]}`" for section in SECTIONS for param in options if param not in own and _in(param, section)
    ]
    if own:
        lines = [f"| {_flag(param)} | {_default(param)} | {_description(param, rows)} |" for param in own]
        text = _replaced(text, r"\| option \| default .*?\n(?=\n|\Z)", _table("option | default | what it does", lines))
    return (
        _replaced(text, r"As in `upload`: .*?\.\n", _filled(f"As in `upload`: {', '.join(shared)}."))
        if shared
        else text
    )


def _upload(options: list[Any], rows: dict[str, str]) -> str:
    tables = []
    for section in SECTIONS:
        lines = []
        for param in (param for param in options if _in(param, section)):
            default = _default(param) if param.name in OPTIONS else ""
            lines.append(f"| {_flag(param)} | {default} | {_description(param, rows)} |")
        head = f"**{section}**\n\n" if section != "Options" else ""
        tables.append(head + _table("option | default | what it does", lines))
    return "\n".join(tables)


def _description(param: Any, rows: dict[str, str]) -> str:
    """Return the text of the page, for a new option its help text without environment variable and default."""
    return rows.get(param.opts[0]) or str(param.help).partition(" [")[0]


def _in(param: Any, section: str) -> bool:
    return bool((param.rich_help_panel or "Options") == section)


def _flag(param: Any) -> str:
    names = ", ".join(f"`{name}`" for name in param.opts)
    return f"{names} `{param.metavar.partition('|')[0]}`" if param.metavar else names


def _default(param: Any) -> str:
    default = OPTIONS[param.name].default if param.name in OPTIONS else param.default
    if isinstance(default, bool):
        return ("on" if default else "off") if param.name in OPTIONS else ""
    if isinstance(default, int | float):
        return f"`{default:g}`"
    return f"`{default}`" if default else ""


def _table(head: str, lines: list[str]) -> str:
    rule = "|".join("---" for _ in head.split(" | "))
    return "\n".join([f"| {head} |", f"|{rule}|", *(re.sub(r"\|  (?=\|)", "| ", line) for line in lines)]) + "\n"


def _filled(text: str) -> str:
    """Break the text into lines of at most 120 characters."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line]) + "\n"


def _replaced(text: str, pattern: str, new: str) -> str:
    """Replace the only match of the pattern."""
    out, count = re.subn(pattern, lambda _found: new, text, count=1, flags=re.DOTALL)
    assert count == 1, (pattern, text)
    return out


_HEAD = '''"""The types of the options of `Settings` as keywords of the library; written by docs/cli_options.py."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal, TypeAlias, TypedDict

from uploader_cli.settings.values import {values}

Text: TypeAlias = str | os.PathLike[str]


class Options(TypedDict, total=False):
    """The fields of `Settings`; None stands for the default."""

'''


_FEATURES = '''

FEATURE_OF = {{
{}}}
"""The options of features, also of those that are not there, and their features."""
FEATURE_OF_COMMAND: dict[str, str] = {{
{}}}
"""Their commands."""
FEATURE_OF_ACTION: dict[str, str] = {{
{}}}
"""Their actions of `uploader report`."""
FEATURE_OF_FORMAT: dict[str, str] = {{
{}}}
"""Their formats of reports, by the name and by the suffix."""
FEATURE_OF_SOURCES = "{}"
"""The one that reads files at URLs."""
'''


def keywords() -> str:
    """Return the module with the types of the options: as `Settings` has them, or as text."""
    own: set[str] = set()
    lines = [
        f"    {spec.name}: {_union(_types(spec.type, own))} | None\n"
        for spec in fields(Settings)
        if spec.name in OPTIONS
    ]
    parts = FEATURE_OF | {option.name: feature.name for feature in features() for option in feature.options}
    commands = FEATURE_OF_COMMAND | {
        command.name: feature.name for feature in features() for command in feature.commands
    }
    actions = FEATURE_OF_ACTION | {action.name: feature.name for feature in features() for action in feature.actions}
    formats = FEATURE_OF_FORMAT | {
        name: feature.name for feature in features() for one in feature.formats for name in (one.name, one.suffix)
    }
    rows = (
        "".join(f'    "{name}": "{part}",\n' for name, part in sorted(known.items()))
        for known in (parts, commands, actions, formats)
    )
    sources = next((feature.name for feature in features() if feature.sources), FEATURE_OF_SOURCES)
    return _HEAD.format(values=", ".join(sorted(own))) + "".join(lines) + _FEATURES.format(*rows, sources)


_TYPED = '''"""What features add to classes of the library, for type checkers; written by docs/cli_options.py."""

from __future__ import annotations

from dataclasses import dataclass
{standard}from typing import {typing}
{imports}

class Added:
    """The fields of events and receipts."""
{fields}

class AddedResult:
    """The fields of `Result`."""
{result}

@dataclass(frozen=True, kw_only=True)
class AddedOptions:
    """The options, as fields of `Settings`."""
{options}'''


def typed() -> str:
    """Return the module with the types of what features add."""
    own: set[type] = set()
    added: dict[bool, dict[str, Any]] = {False: {}, True: {}}  # whether they are those of `Result`
    for place, name, kind in (field for feature in features() for field in _added(feature)):
        added[place == "Result"][name] = kind
        own |= {part for part in get_args(kind) if getattr(part, "__module__", "").startswith("uploader_cli")}
    fields, result = (
        "".join(f"\n    {name}: {_written(kind)}" for name, kind in some.items()) for some in added.values()
    )
    rows = [
        f"\n    {option.name}: {_written(option.annotation)} = {_value(option.default)}"
        for feature in features()
        for option in feature.options
    ]
    types = [option.type for feature in features() for option in feature.options]
    kinds = {part for kind in types if get_origin(kind) is not Literal for part in get_args(kind)}
    others = kinds - {NoneType, str, Any, ...}  # from 3.13 on `Path` is in `pathlib._local`
    standard = "".join(sorted(f"from {kind.__module__.partition('.')[0]} import {kind.__name__}\n" for kind in others))
    imports = "".join(sorted(f"\nfrom {kind.__module__} import {kind.__name__}" for kind in own))
    return _TYPED.format(
        standard=standard,
        typing="Any, Literal" if any(get_origin(kind) is Literal for kind in types) else "Any",
        imports=f"{imports}\n" if imports else "",
        fields=fields + "\n" * bool(fields),
        result=result + "\n" * bool(result),
        options="".join(rows) + "\n" * bool(rows),
    )


def _added(feature: Feature) -> Iterator[tuple[str, str, Any]]:
    """Yield the fields that a feature adds, each with the name of its class and its type."""
    for place, added in feature.load(feature.fields).items() if feature.fields else ():
        yield from ((place, name, kind) for name, kind, _ in added)


_PUBLIC = '''"""Classes that features add to the library, for type checkers; written by docs/cli_options.py."""

{imports}
__all__ = {names}
'''


def public() -> str:
    """Return the module that imports the public classes of features."""
    places = {name: f"{feature.name}.{place.partition(':')[0]}" for name, (feature, place) in exported().items()}
    imports = "".join(sorted(f"from uploader_cli.features.{place} import {name}\n" for name, place in places.items()))
    return _PUBLIC.format(imports=imports, names=f"[{', '.join(map(_quoted, sorted(places)))}]")


def _written(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return _literal(kind)
    if get_origin(kind) is tuple:  # of any length
        return f"tuple[{_written(get_args(kind)[0])}, ...]"
    return " | ".join("None" if part is NoneType else part.__name__ for part in get_args(kind) or [kind])


def _literal(kind: Any) -> str:
    return f"Literal[{', '.join(map(_quoted, get_args(kind)))}]"


def _types(given: Any, own: set[str]) -> Iterator[str]:
    """Yield what a type is written as, and `str` where a text is parsed; add the names of our types to `own`."""
    if get_origin(given) is tuple:
        one = _union(["Text", *_types(get_args(given)[0], own)])
        yield from (one, f"Iterable[{one}]")
    elif get_origin(given) is Literal:
        yield _literal(given)
    elif isinstance(given, UnionType) or get_origin(given) is not None:
        for part in get_args(given):
            yield from _types(part, own)
    elif given is Any:  # of a feature
        yield "str"
    elif given is Path:
        yield "Text"
    elif given is not NoneType:
        yield given.__name__
        if given.__module__ != "builtins":
            own.add(given.__name__)
        if given is not bool:
            yield "str"


def _union(types: Iterable[str]) -> str:
    """Write a union without what another type of it includes."""
    known = dict.fromkeys(types)
    texts = known.keys() & {"Text", "str"}
    if "Text" in texts:
        known.pop("str", None)
    return " | ".join(name for name in known if not (texts and name.startswith("Literal")))


def _value(value: object) -> str:
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(value: str) -> str:
    return f'"{value}"'


if __name__ == "__main__":
    KEYWORDS.write_text(keywords(), encoding="utf-8")
    TYPED.write_text(typed(), encoding="utf-8")
    PUBLIC.write_text(public(), encoding="utf-8")
    for name in COMMANDS:
        page = page_of(name)
        text = page.read_text(encoding="utf-8")
        section = section_of(name, text)
        page.write_text(text.replace(section, updated(name, section)), encoding="utf-8")
