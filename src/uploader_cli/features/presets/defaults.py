"""The presets as defaults of other options: the built-in ones, and those of the user's config file."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from uploader_cli.errors import UsageError
from uploader_cli.features.presets.known import BUILT_IN, CREATED_BY_SERVICE
from uploader_cli.settings import Layer, Settings, Source
from uploader_cli.settings.config_files import Defaults, Given, Table, Tables, of_user
from uploader_cli.settings.values import or_none, text

OPTION = "preset"
PATH_FIELD = re.compile(r"\{(path|dir)\}")
name = or_none(text)


def named(asked: str, source: Source, user_config: Path | None, own: Tables) -> Defaults:
    """Return the defaults of a preset of the user, else of a built-in one. Raise `UsageError` for an unknown name."""
    if asked in own:
        return Defaults(own[asked], check=_check_names)
    if asked not in BUILT_IN:
        known = ", ".join(sorted(own.keys() | BUILT_IN.keys()))
        where = user_config or "your config file"
        hint = f"use one of: {known}; or write [preset.NAME] into {where}"
        raise UsageError(f"{source}: unknown preset {asked!r}", hint=hint)
    return Defaults(_built_in(asked), endpoint_option(asked), partial(_check, asked))


def terms(settings: Any) -> dict[str, object]:
    """Return what a preset says of a server; its service may not know the metadata of a key."""
    known = BUILT_IN.get(settings.preset)
    return {"gets_keys": False, "tells_missing": known is not None and known.tells_missing}


def own_presets(user_config: Path | None) -> Tables:
    """Return the presets of the user's config file. Raises `UsageError` for an invalid file."""
    return of_user(user_config).named.get(OPTION, {})


def names(directory: Path, user_config: Path | None) -> list[str]:
    """Return the names of all presets, sorted. Raises `UsageError` for an invalid file."""
    del directory  # it may belong to a stranger
    return sorted(BUILT_IN.keys() | own_presets(user_config).keys())


def endpoint_option(asked: str) -> str:
    """Return the option that names the server of a built-in preset, with the form of its value."""
    form = BUILT_IN[asked].endpoint
    return f"--upload-url {form}" if form == CREATED_BY_SERVICE else f"--tus-endpoint {form}"


def _built_in(asked: str) -> Table:
    source = Source(Layer.NAMED, "", option=OPTION)
    values = BUILT_IN[asked].settings
    return {key: Given(raw, source._replace(name=f"preset {asked}: {key}"), Path()) for key, raw in values.items()}


def _check(asked: str, settings: Settings) -> None:
    """Raise `UsageError` for an endpoint that does not have the form of a built-in preset."""
    known, source, endpoint = BUILT_IN[asked], settings.source("tus_endpoint"), settings.tus_endpoint or ""
    if known.endpoint == CREATED_BY_SERVICE and not (settings.upload_url or settings.from_file):
        raise UsageError(
            f"{source}: the preset {asked} is for uploads that the service has created",
            hint=f"give {known.needs[CREATED_BY_SERVICE]}",
        )
    host, _, path = endpoint.partition("://")[2].partition("/")
    for word, what in known.needs.items():
        if word in path.split("/") or (word != "HOST" and word.lower() in host.split(".")):
            raise UsageError(f"{source}: replace {word}", hint=f"it is {what}")
    if "{path}" in known.endpoint and endpoint and "{" not in endpoint:
        hint = f"its form is {known.endpoint}"
        raise UsageError(f"{source}: the preset {asked} needs the name of each file in the URL", hint=hint)
    _check_names(settings)


def _check_names(settings: Any) -> None:
    """Raise `UsageError` for `--dest` where names are sent without their directories."""
    templates = [settings.tus_endpoint, *(item.template for item in settings.metadata)]
    if settings.dest and not any(PATH_FIELD.search(one or "") for one in templates):
        raise UsageError(
            f"{settings.source('dest')}: the preset {settings.preset} sends names without directories",
            hint="send them as well, for example with --metadata 'filename={path}'",
        )
