"""Update docs/public_surface.txt, what docs/ready.md promises to keep: `python docs/public_surface.py`."""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

import uploader_cli
from uploader_cli.cli.app import app
from uploader_cli.core import events
from uploader_cli.core.state import ProgressState
from uploader_cli.exit_status import Exit
from uploader_cli.render.event_schema import schema_text
from uploader_cli.report.document import REPORT_FORMAT, REPORT_VERSION, RunFacts, added_by, report_head
from uploader_cli.settings import OPTIONS, Settings

PAGE = Path(__file__).with_name("public_surface.txt")


def surface() -> str:
    """Return a line for each public name, with what it takes."""
    return "".join(
        f"{line}\n" for part in (_commands, _settings, _exits, _events, _reports, _exports) for line in part()
    )


def _commands() -> Iterator[str]:
    group: Any = get_command(app)
    for name, command in group.commands.items():
        for param in command.params:
            names = " ".join(sorted(param.opts)) if param.param_type_name == "option" else f"<{param.name}>"
            default = param.default if isinstance(param.default, str | int | float) and param.default != "" else None
            shown = f" {param.metavar}" if param.metavar and param.param_type_name == "option" else ""
            yield f"command {name} {names}{shown}" + (f" = {default}" if default not in (None, False) else "")


def _settings() -> Iterator[str]:
    for option in OPTIONS.values():
        values = f" {'|'.join(option.names)}" if option.names else ""
        yield f"setting {option.name} {option.variable}{values} = {option.default} config={option.config}"


def _exits() -> Iterator[str]:
    for code in Exit:
        yield f"exit {code.value} {code.name}"


def _events() -> Iterator[str]:
    schema = json.loads(schema_text())
    yield f"events {schema['$id']}"
    for event in schema["oneOf"]:
        needed = set(event["required"])
        fields = [name if name in needed else f"{name}?" for name in event["properties"]]
        yield f"event {event['properties']['type']['const']} {' '.join(fields)}"
    for kind in (events.Phase, events.FailureCode, events.SkipReason, events.ChannelState, events.WarningCode):
        yield f"values {kind.__name__} {' '.join(sorted(map(str, kind)))}"


def _reports() -> Iterator[str]:
    head = report_head(ProgressState(), RunFacts("run", "version", 0.0, added=added_by(Settings())), 0.0)
    yield f"report {REPORT_FORMAT} v{REPORT_VERSION} {' '.join(head)}"
    yield f"report row {' '.join(events.FileEnded.__struct_fields__)}"


def _exports() -> Iterator[str]:
    for name in uploader_cli.__all__:
        item = getattr(uploader_cli, name)
        yield f"export {name}{_signature(item)}"
        if inspect.isclass(item) and not issubclass(item, enum.Enum | Exception):
            for member, value in vars(item).items():
                if not member.startswith("_") and callable(value):
                    yield f"export {name}.{member}{_signature(value)}"


def _signature(item: Any) -> str:
    """Return the names of the parameters with their defaults; fields of events are listed as events."""
    if inspect.isclass(item) and issubclass(item, enum.Enum | Exception | events.Event):
        return ""
    if item is uploader_cli.Settings:  # its fields are the settings
        return ""
    given = inspect.signature(item).parameters.values()
    return f"({', '.join(one.name if one.default is one.empty else f'{one.name}=' for one in given)})"


if __name__ == "__main__":
    PAGE.write_text(surface(), encoding="utf-8")
