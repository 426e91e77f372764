"""Resolve `Settings`: flag > environment > profile > working directory's config > user config > default."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uploader_cli.errors import UsageError
from uploader_cli.feature import features, instead, trial
from uploader_cli.named_files import check_input
from uploader_cli.settings import config_files
from uploader_cli.settings.config_files import PROFILES, Config, Defaults, Given, Table
from uploader_cli.settings.model import OPTIONS, Settings
from uploader_cli.settings.option import VARIABLES_BEGIN, Layer, Option, Source
from uploader_cli.settings.places import user_config_file, working_directory
from uploader_cli.settings.spelling import lacking, nearest
from uploader_cli.settings.stored import NAMED_BY_DIRECTORY
from uploader_cli.settings.values import Invalid, merged, written_size

TUS_ONLY = (
    *("metadata", "chunk_rule", "retry_status", "id_header", "place"),
    *("allowed_names", "empty_files", "empty_at_creation", "bytes_at_creation", "parts", "part_metadata"),
    "checksum_compared",
    *(option.name for feature in features() for option in feature.options if option.tus_only),
)
"""Options for tus servers without sessions."""
SENT = ("filename", "relativePath")
"""Metadata that is sent where files have keys, and that may be the place of a file."""


def resolve(
    flags: Mapping[str, object | None],
    *,
    env: Mapping[str, str],
    cwd: Path,
    user_config: Path | None,
    stored: Mapping[str, object] | None = None,
    need_server: bool = True,
    ignored: Collection[str] = (),
) -> Settings:
    """Resolve the settings of one command; `flags` by option name, None or an empty list for one that was not used.

    `stored` are the options of a run (`storable`), used for flags that were not given; `ignored` are options
    that the command knows from no source. A run that sends nothing needs no server, nor does an upload to a tus
    endpoint. Raises `UsageError` that names the flag, variable or file and key, and the fix.
    """
    typed = {**(stored or {}), **{name: raw for name, raw in flags.items() if raw is not None and raw != []}}
    distrusted = bool(typed.pop(NAMED_BY_DIRECTORY, None))
    if unknown := sorted((stored or {}).keys() - OPTIONS.keys() - {NAMED_BY_DIRECTORY}):
        raise UsageError(
            f"the run has the option {unknown[0]}, which this version does not know",
            hint=lacking(unknown[0]) or "resume it with the version of uploader that started it, or a newer one",
        )
    here, notes = config_files.of_directory(cwd, user_config)
    own = config_files.of_user(user_config)
    environment = _environment(env, cwd)
    notes += tuple(_unknown_variables(env))
    line = {name: Given(raw, Source(Layer.FLAG, OPTIONS[name].flag), cwd) for name, raw in typed.items()}
    known = here.profiles.keys() | own.profiles.keys()
    if stored and flags.get(PROFILES) is None and PROFILES in line and line[PROFILES].raw not in known:
        gone = line.pop(PROFILES).raw
        notes += (f"the profile {gone!r} of the run is not in the config files here; the run continues without it",)
    profile = _profile(line.get(PROFILES) or environment.get(PROFILES), known, user_config)
    chosen = own.profiles.get(profile, {})
    layers: tuple[Mapping[str, Given], ...] = (line, environment, here.profiles.get(profile, {}), chosen)
    layers += (here.base, own.base)
    named = _named(layers, own, user_config)
    settings = _with_target(_settings(layers, named.table, env, notes, ignored))
    if not settings.foreign:
        settings = _with_target(_settings(layers, {}, env, notes, ignored))
        needed = "a tus server: the server's own protocol has no place for it"
        settings = without(settings, TUS_ONLY, needed, f"name the tus server with {named.endpoint}")
    elif named.check:
        named.check(settings)
    for feature in features():
        if feature.resolve and any(getattr(settings, one.name) != one.default for one in feature.options):
            settings = feature.load(feature.resolve)(settings)
    if distrusted:
        name = settings.target_option
        source = Source(Layer.WORKING_DIRECTORY, f"{settings.source(name)}, as the directory of the run named it")
        settings = settings.changed(name, getattr(settings, name), source)
    if flags.get("trust_receipts") and not settings.skip_existing:
        raise UsageError("--trust-receipts needs --skip-existing", hint="add --skip-existing, or omit it")
    if flags.get("resend") and flags.get("skip_existing"):
        raise UsageError("--resend and --skip-existing exclude each other", hint="omit one of them")
    settings = _resending(settings)
    _check(settings, need_server=need_server, user_config=user_config)
    return _trusting(settings, (environment, chosen, own.base, named.table))


def resolve_here(flags: Mapping[str, object | None], *, env: Mapping[str, str] = os.environ, **how: Any) -> Settings:
    """Resolve the settings as `resolve` does, for this process: its environment, its directory and its user."""
    return resolve(flags, env=env, cwd=working_directory(), user_config=user_config_file(), **how)


def _first(name: str, layers: Iterable[Mapping[str, Given]]) -> Given | None:
    return next((layer[name] for layer in layers if name in layer), None)


def _settings(
    layers: Sequence[Table], named: Table, env: Mapping[str, str], notes: tuple[str, ...], ignored: Collection[str]
) -> Settings:
    """Return the settings of the layers; headers and metadata of `named`, the weakest one, are added to others."""
    found: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for name, option in OPTIONS.items():
        given = _first(name, (*layers, named)) if name not in ignored else None
        if given is None:
            continue
        value = _value(option, given)
        if name in ("header", "metadata") and named.get(name, given) is not given:
            value = merged(value, _value(option, named[name]), ignore_case=name == "header")
        if option.resolve is not None and value != option.default:
            try:
                value = option.resolve(value, env)
            except Invalid as error:
                raise UsageError(f"{given.source}: {error}", hint=error.hint) from None
        found[name], sources[name] = value, given.source._replace(value=value)
    return Settings(**found, sources=sources, notes=notes)


def _named(layers: Sequence[Table], own: Config, user_config: Path | None) -> Defaults:
    """Return the defaults that an option of a feature names. Raise `UsageError` for an unknown name."""
    for feature in features():
        name = feature.options[0].name if feature.defaults else ""
        asked = _first(name, layers)
        value = _value(OPTIONS[name], asked) if asked else None
        if asked and value is not None:
            found: Defaults = feature.load(feature.defaults)(value, asked.source, user_config, own.named.get(name, {}))
            return found
    return Defaults()


def profiles(cwd: Path, user_config: Path | None) -> list[str]:
    """Return the names of the profiles in the config files, sorted. Raises `UsageError` for an invalid file."""
    here, _ = config_files.of_directory(cwd, user_config)
    return sorted(here.profiles.keys() | config_files.of_user(user_config).profiles.keys())


def _environment(env: Mapping[str, str], cwd: Path) -> dict[str, Given]:
    """Read `UPLOADER_<OPTION>`; an empty variable counts as unset, a list has one item per line."""
    found = {}
    for name, option in OPTIONS.items():
        raw: object = env.get(option.variable, "")
        if option.many:
            raw = [line for line in str(raw).splitlines() if line.strip()]
        if raw:
            found[name] = Given(raw, Source(Layer.ENVIRONMENT, option.variable), cwd)
    return found


def _unknown_variables(env: Mapping[str, str]) -> Iterator[str]:
    """Yield a note for each variable that looks like a setting and is none."""
    known = {option.variable.removeprefix(VARIABLES_BEGIN) for option in OPTIONS.values()}
    for name in sorted(env):
        if name.startswith(VARIABLES_BEGIN) and (own := name.removeprefix(VARIABLES_BEGIN)) not in known:
            near = nearest(own, known)
            why = f"did you mean {VARIABLES_BEGIN}{near}?" if near else "no setting has this name"
            why = lacking(own.lower()) or why
            yield f"{name} has no effect: {why}"


def _profile(asked: Given | None, known: Iterable[str], user_config: Path | None) -> str:
    """Return the requested profile, or an empty string. Raises `UsageError` if no config file has it."""
    if asked is None:
        return ""
    if asked.raw in known:
        return str(asked.raw)
    where = f"{user_config} or " if user_config else ""
    names = ", ".join(sorted(known))
    hint = f"use one of: {names}" if names else f"no profile is defined: write [profile.NAME] into {where}uploader.toml"
    raise UsageError(f"{asked.source}: unknown profile {asked.raw!r}", hint=hint)


def _value(option: Option, given: Given) -> Any:
    try:
        if option.many:
            return tuple(_absolute(option.parse(item), given.base) for item in given.raw)
        value = _absolute(option.parse(given.raw), given.base)
    except Invalid as error:
        raise UsageError(f"{given.source}: {error}", hint=error.hint) from None
    if option.must_exist:
        check_input(value, given.source, directory=option.must_exist == "file or directory")
    return value


def _absolute(value: Any, base: Path) -> Any:
    """Resolve a relative path against the directory of its config file, or the working directory."""
    if isinstance(value, Path):
        return base / value
    path = getattr(value, "path", None)  # of a named tuple
    return value._replace(path=base / path) if isinstance(path, Path) else value


def _with_target(settings: Settings) -> Settings:
    """Use tus with an endpoint or an upload URL, without options that belong to a session or to another upload.

    Drop the endpoint where a source of higher precedence names a server.
    """
    server, endpoint = settings.source("server"), settings.source("tus_endpoint")
    if settings.tus_endpoint and server.layer.rank < endpoint.layer.rank:
        settings = replace(settings, tus_endpoint=None)
    if not settings.foreign:
        return settings
    source = settings.source("upload_url") if settings.upload_url else endpoint
    excluded = {} if settings.upload_url else {"server": "both name a destination"}
    excluded["category"] = "a tus server has no categories"
    if settings.upload_url:
        excluded["metadata"] = "the upload was created with its metadata"
        excluded["from_file"] = "a list has a column upload_url"
        excluded["dest"] = "the upload has its place already"
    if settings.protocol == "batch":
        excluded["protocol"] = "an upload to a tus server uses the tus protocol"
    for name, why in excluded.items():
        if settings.source(name).layer is Layer.FLAG and getattr(settings, name):
            flag = "--protocol batch" if name == "protocol" else OPTIONS[name].flag
            raise UsageError(f"{flag} and {source} exclude each other: {why}", hint="omit one of them")
    return settings if settings.protocol in ("tus", "ietf") else settings.changed("protocol", "tus", source)


def without(settings: Settings, names: Iterable[str], needed: str, hint: str) -> Settings:
    """Drop options that are useless without what is `needed`. Raise `UsageError` for one on the command line."""
    given = [name for name in names if getattr(settings, name) != OPTIONS[name].default]
    for name in given:
        if settings.source(name).layer is Layer.FLAG:
            raise UsageError(f"{OPTIONS[name].flag} needs {needed}", hint=hint)
    return replace(settings, **{name: OPTIONS[name].default for name in given}) if given else settings


def _resending(settings: Settings) -> Settings:
    """Drop `resend` or `skip_existing` where the other one has a source of higher precedence."""
    ranks = [settings.source(name).layer.rank for name in ("resend", "skip_existing")]
    if not (settings.resend and settings.skip_existing) or ranks[0] == ranks[1]:
        return settings
    return replace(settings, skip_existing=False) if ranks[0] < ranks[1] else replace(settings, resend=False)


def _check(settings: Settings, *, need_server: bool, user_config: Path | None) -> None:
    if not settings.target_url and need_server and instead(settings) is None:
        file = f"uploader.toml here{f', or {user_config}' if user_config else ''}"
        hint = f'give --server URL, set UPLOADER_SERVER, or write server = "URL" into a config file ({file})'
        if command := trial():
            hint += f". To try it without a server: {command}"
        raise UsageError("no server given", hint=hint)
    rule, size = settings.chunk_rule, settings.chunk_size
    if rule is not None and size != "auto" and not rule.allows(size):
        raise UsageError(
            f"{settings.source('chunk_size')}: {written_size(size)} does not fit the rule of the server, {rule}"
            f" ({settings.source('chunk_rule')})",
            hint="omit it: the size is chosen by that rule",
        )
    sent = {item.name for item in settings.metadata} | (set(SENT) if settings.terms.get("gets_keys", True) else set())
    if unsent := [name for name in settings.place if name not in sent]:
        raise UsageError(
            f"{settings.source('place')}: no metadata {unsent[0]} is sent",
            hint=f"use one of: {', '.join(sorted(sent))}; or add it with --metadata",
        )
    flags = [settings.source(name).layer is Layer.FLAG for name in ("quiet", "verbose")]
    if settings.quiet and settings.verbose and all(flags):
        raise UsageError("--quiet and --verbose exclude each other", hint="omit one of them")


def _trusting(settings: Settings, trusted: Iterable[Mapping[str, Given]]) -> Settings:
    """Return the settings with `distrust` if only the config of a working directory has named the server."""
    name = settings.target_option
    if not settings.source(name).layer.untrusted:
        return settings
    if any(name in layer and _value(OPTIONS[name], layer[name]) == getattr(settings, name) for layer in trusted):
        return settings  # the user's own settings name it, too
    return replace(settings, distrust="only the config of a directory names the server")
