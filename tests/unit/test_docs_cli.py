"""docs/cli.md, docs/events.md and the pages of the commands are complete and correct, and each row has a test."""

from __future__ import annotations

import dataclasses
import re
import runpy
from typing import Any

import feature_samples
import pytest
from docs_pages import ROOT, codes, page, rows
from docs_pages import section as section_of
from typer.main import get_command

from uploader_cli.cli.app import app
from uploader_cli.core import events
from uploader_cli.exit_status import Exit, worst
from uploader_cli.settings import OPTIONS

PAGE, EVENTS = page("cli.md"), page("events.md")
COMMANDS: dict[str, Any] = {
    name: command
    for name, command in get_command(app).commands.items()  # type: ignore[attr-defined]
    if not command.hidden
}
MADE = runpy.run_path(str(ROOT / "docs" / "cli_options.py"))
ENUMS = {
    "`phase` of `file.progress`": events.Phase,
    "`code` of `file.retry`, `file.failed`": events.FailureCode,
    "`reason` of `file.skipped`": events.SkipReason,
    "`from`, `to` of `channel.changed`": events.ChannelState,
    "`transport` of `channel.changed`": events.Transport,
    "`reason` of `channel.changed`": events.ChannelReason,
    "`code` of `warning`": events.WarningCode,
    **feature_samples.ENUMS,
}
NESTED: dict[str, Any] = {
    "`channel` of `run.finished`": events.ChannelStats,
    "`metrics` of `run.finished`": events.Metrics,
}


def section(title: str) -> str:
    return section_of(PAGE, title)


def page_of(command: str) -> str:
    """Return what the pages say of a command."""
    text: str = MADE["section_of"](command, MADE["page_of"](command).read_text(encoding="utf-8"))
    return text


SHORT = {param.opts[0]: set(param.opts[1:]) for param in COMMANDS["upload"].params}


def flags_on_the_page(command: str) -> set[str]:
    """Return the flags in the table of a command, and those it shares with `upload`, with their short forms."""
    text = page_of(command)
    own = {code for row in rows(text) for code in codes(row[0]) if code.startswith("-")}
    shared = re.search(r"^As in `upload`: (.*?)\.$", text, re.DOTALL | re.MULTILINE)
    return own.union(*({flag} | SHORT[flag] for flag in codes(shared[1]))) if shared else own


def options_of(command: str) -> list[Any]:
    return [param for param in COMMANDS[command].params if param.param_type_name == "option" and param.name != "help"]


def test_the_commands_are_those_of_the_app() -> None:
    table = [re.fullmatch(r"\[`uploader (\w+).*`\]\(([^#]+).*\)", row[0]) for row in rows(section("## Commands"))]
    pages = [(name, str(MADE["page_of"](name).relative_to(ROOT / "docs"))) for name in COMMANDS]
    assert sorted(found.groups() for found in table if found) == sorted(pages)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_are_those_of_the_command(command: str) -> None:
    assert flags_on_the_page(command) == {opt for param in options_of(command) for opt in param.opts}


def test_option_tables_are_current() -> None:
    """`python docs/cli_options.py` updates them."""
    for name in COMMANDS:
        assert MADE["updated"](name, page_of(name)) == page_of(name)
    assert MADE["keywords"]() == MADE["KEYWORDS"].read_text(encoding="utf-8")
    assert MADE["typed"]() == MADE["TYPED"].read_text(encoding="utf-8")
    assert MADE["public"]() == MADE["PUBLIC"].read_text(encoding="utf-8")


def test_the_options_of_the_program_are_named() -> None:
    root = {param.opts[0] for param in get_command(app).params}
    assert root == {"--version"}
    for flag in root:
        assert flag in section("## Commands")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_switch_can_be_switched_off(command: str) -> None:
    for param in options_of(command):
        if param.name in OPTIONS and OPTIONS[param.name].default is False:
            assert param.secondary_opts == [f"--no-{param.opts[0][2:]}"]


def test_defaults_are_those_of_the_settings() -> None:
    for option, default, _ in rows(page_of("upload")):
        name = codes(option)[0][2:].replace("-", "_")
        if name != "json_schema":
            assert default == _shown(OPTIONS[name].default), name


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, (int, float)):
        return f"`{default:g}`"
    return f"`{default}`" if default else ""


@pytest.mark.parametrize("command", ["demo", "watch"])
def test_defaults_are_those_of_the_command(command: str) -> None:
    documented = {codes(row[0])[0]: codes(row[1]) for row in rows(page_of(command))}
    for param in options_of(command):
        if param.name not in OPTIONS:
            assert documented[param.opts[0]] == ([] if param.default is None else [str(param.default)])


def test_the_keys_a_working_directory_may_not_set_are_named() -> None:
    named = set(codes(section("### Other people's directories"))) & OPTIONS.keys()
    assert named == {name for name, option in OPTIONS.items() if option.config == "user"}


def test_the_exit_codes_are_those_of_the_program() -> None:
    assert [int(row[0]) for row in rows(section("## Exit codes"))] == [int(code) for code in Exit]


def test_the_order_of_exit_codes() -> None:
    order = [143, 130, 7, 5, 6, 4, 3]
    for rank, code in enumerate(order):
        assert worst(Exit(other) for other in reversed(order[rank:])) == code


def test_the_events_and_their_fields_are_those_of_the_stream() -> None:
    documented = {
        codes(row[0])[0]: codes(row[1])
        for row in rows(section_of(EVENTS, "## The event stream"))
        if row[0] not in ENUMS.keys() | NESTED.keys()
    }
    assert documented.keys() == {event.type for event in events.public_events()}
    for event in events.public_events():
        assert sorted(documented[event.type]) == sorted(_fields(event)), event.type


def _fields(event: type[events.Event]) -> list[str]:
    """Return the public fields, those with a default of None with a question mark."""
    names, defaults = event.__struct_fields__, event.__struct_defaults__
    optional = {name for name, default in zip(names[::-1], defaults[::-1], strict=False) if default is None}
    public = [name for name in names if name not in events.internal_fields(event)]
    return [name.rstrip("_") + ("?" if name in optional else "") for name in public]


@pytest.mark.parametrize("where", NESTED)
def test_the_fields_of_a_nested_object_are_named(where: str) -> None:
    documented = {row[0]: codes(row[1]) for row in rows(section_of(EVENTS, "## The event stream"))}
    assert documented[where] == [field.name for field in dataclasses.fields(NESTED[where])]


@pytest.mark.parametrize("where", ENUMS)
def test_the_values_of_an_enumeration_are_those_of_the_stream(where: str) -> None:
    documented = {row[0]: codes(row[1]) for row in rows(section_of(EVENTS, "## The event stream"))}
    assert documented[where] == [member.value for member in ENUMS[where]]
