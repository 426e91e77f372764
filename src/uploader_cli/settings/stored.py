"""The options of a stored run: what defines it, and with which settings it is resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from uploader_cli.settings.addresses import origin
from uploader_cli.settings.model import LIMITS_OF_WAITING, OPTIONS, Settings, patience
from uploader_cli.settings.values import merged

NAMED_BY_DIRECTORY = "named_by_directory"
"""Key of a stored run whose server only the config of a working directory named: no secret may be sent there."""

_FIXED = {"resume": True}


def storable(settings: Settings) -> dict[str, str | list[str] | bool]:
    """Return the options that define a run, as JSON values for `resolve(flags, stored=…)`.

    They are complete, so that neither the environment nor a later config file changes the run. Secrets, commands and
    what decides whom to trust (`ca_bundle`, `client_cert`, `proxy`, `insecure`) are not included: these come from the
    command that resumes the run, its environment and its config files. `resume` is always on.
    """
    stored: dict[str, str | list[str] | bool] = {**_FIXED, "dest": "."}
    for name, spec in OPTIONS.items():
        value: Any = patience(settings, name) if name in LIMITS_OF_WAITING else getattr(settings, name)
        unused = {"server": settings.tus_endpoint or not settings.server, "category": settings.session_category is None}
        if not spec.stored or unused.get(name):
            continue
        if spec.many:
            items = [str(item.absolute() if isinstance(item, Path) else item) for item in value]
            stored[name] = items or ""  # an empty list would mark an unused flag
        elif isinstance(value, bool):
            stored[name] = value
        elif isinstance(value, Path):
            stored[name] = str(value.absolute())
        elif value == math.inf:
            stored[name] = "none"
        elif value is not None:
            stored[name] = str(value)
        elif value is None and spec.parse("none") is None:
            stored[name] = "none"
    if settings.distrust or settings.source(settings.target_option).layer.untrusted:
        stored[NAMED_BY_DIRECTORY] = True
    return stored


def admitted(row: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a row of the journal without those that no run stores: a row brings no secret or trust."""
    return {name: value for name, value in row.items() if name not in OPTIONS or OPTIONS[name].stored or name in _FIXED}


def resumed(caller: Settings, run: Settings) -> Settings:
    """Return the settings of a stored run that a caller of the library resumes with settings of its own.

    What defines a run is the run's, all else the caller's. Secrets are for the server that the caller has named: the
    server of another run does not get them.
    """
    stored: dict[str, Any] = {name: getattr(run, name) for name, option in OPTIONS.items() if option.stored}
    other = origin(run.trusted_url or run.target_url) != origin(caller.trusted_url or caller.target_url)
    distrust = "the server of the run is not the one of these settings" if other else caller.distrust
    named = tuple(header for header in run.header if run.names_defaults and not header.secret)
    own: dict[str, Any] = {
        "header": merged(caller.header, named, ignore_case=True),
        "from_file": run.from_file,
        "resume": True,
    }
    sources = {name: source for name, source in caller.sources.items() if name not in stored}
    sources |= {name: source for name, source in run.sources.items() if name in stored or name == "from_file"}
    return replace(caller, **stored, **own, sources=sources, notes=run.notes, distrust=distrust)
