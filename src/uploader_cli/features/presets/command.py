"""The command `presets`."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.features.presets.defaults import endpoint_option, names, own_presets
from uploader_cli.features.presets.known import BUILT_IN, SETTINGS
from uploader_cli.render import columns
from uploader_cli.render.words import safe
from uploader_cli.settings import user_config_file

_PAGES = "docs/servers"
_TITLES = ("preset", "server or service", "chunks", "empty files", "parts")
_WIDTHS = (17, 18, 14, 11, 5)


def presets(
    name: Annotated[
        str | None, opt.argument("[NAME]", "Show this preset.", autocompletion=opt.configured(names))
    ] = None,
    **given: Any,
) -> int:
    """List the presets for tus servers and services, or show one."""
    own = own_presets(user_config_file())
    known = {one: _built_in(one) for one in BUILT_IN} | {one: _own(table) for one, table in own.items()}
    if name is not None and name not in known:
        raise UsageError(f"presets: unknown preset {name!r}", hint=f"use one of: {', '.join(sorted(known))}")
    if given["json"]:
        shown: Any = {"preset": name, **known[name]} if name else [{"preset": one, **known[one]} for one in known]
        sys.stdout.write(json.dumps(shown) + "\n")
    else:
        lines = _in_full(name, known[name]) if name else _table(known)
        sys.stdout.write("".join(f"{safe(line.rstrip())}\n" for line in lines))
    return Exit.OK


def _built_in(name: str) -> dict[str, Any]:
    preset = BUILT_IN[name]
    return {**preset._asdict(), "page": f"{_PAGES}/{preset.page}.md", "needs": dict(preset.needs)}


def _own(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset of a config file, of which only the settings are known."""
    return {"service": "(config file)", **{key: given.raw for key, given in table.items()}}


def _table(known: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    width = columns(80, sys.stdout)
    shown = 2 if width < sum(_WIDTHS) + 2 * len(_WIDTHS) else len(_TITLES)
    for row in (_TITLES, *(_row(name, preset) for name, preset in known.items())):
        yield "  ".join(f"{cell:<{size}}" for cell, size in zip(row[:shown], _WIDTHS, strict=False))


def _row(name: str, preset: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        preset["service"],
        str(preset.get("chunk_rule") or "any"),
        _answer(preset.get("empty_files", True)),
        _answer(preset.get("parts", True)),
    )


def _answer(value: object) -> str:
    return "unknown" if value is None else "yes" if value is True else "no" if value is False else str(value)


def _in_full(name: str, preset: Mapping[str, Any]) -> Iterator[str]:
    """Format one preset: the command, what it needs, its settings, and what is unknown."""
    yield f"{name}: {preset['service']}"
    needs: Mapping[str, str] = preset.get("needs", {})
    given = [f"--metadata {key}=…" for key in needs if key in preset.get("metadata", ())]
    endpoint = [endpoint_option(name)] if "endpoint" in preset else []
    rows = [("command", " ".join(["uploader upload PATH…", f"--preset {name}", *endpoint, *given]))]
    rows += needs.items()
    rows += [
        (key.replace("_", "-"), _words(preset[key])) for key in (*SETTINGS, *sorted(preset)) if _is_setting(key, preset)
    ]
    rows += [("unknown", what) for what in preset.get("unknown", ())]
    rows += [("page", preset["page"])] if "page" in preset else []
    for title, words in dict.fromkeys(rows):
        yield f"  {title:<14} {words}"


def _is_setting(key: str, preset: Mapping[str, Any]) -> bool:
    is_known = key in preset and key not in ("service", "page", "endpoint", "needs", "unknown", "tells_missing")
    return is_known and (preset[key] not in (None, (), []) or key == "empty_files")


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else _answer(value)
