"""The settings: one frozen dataclass, which is also the table of options, in the order of the help.

A row of the table says all about an option: its default, its line in the help, how its value is parsed, which commands
take it and which config files may set it. `resolve` reads all sources; `Settings(server=…, retries=2)` sets values
directly.
"""

# ruff: noqa: RUF009, FBT003 - each call of a group makes its own `dataclasses.field`; the default is the first column
# Annotations are evaluated here: they determine parsers.
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from uploader_cli.errors import UsageError
from uploader_cli.feature import Feature, features, used
from uploader_cli.settings import addresses, values
from uploader_cli.settings.bearer import TokenCommand, token_from_file
from uploader_cli.settings.option import DEFAULT, Group, Layer, Option, Source
from uploader_cli.settings.places import user_state_directory
from uploader_cli.settings.report_files import report_file, report_suffixes
from uploader_cli.settings.values import ChunkRule, Header, Metadata, Moment, ReportFile, or_none

if TYPE_CHECKING:
    from uploader_cli.features.typed import AddedOptions
else:
    AddedOptions = object

T = TypeVar("T")
LEAST_CHUNK = 1024
LIMITS_OF_WAITING = ("max_wait", "wait_for_server")
LEAST_RATE = 2048
"""Least bytes per second of a connection with `--limit-rate`: the bundled server ends requests below 1,024."""

_RUN = "upload resume"
_SESSIONS = "watch status cancel delete validate"
_CALLS = f"{_RUN} {_SESSIONS}"

_general = Group("Options", f"{_CALLS} runs config", config="none", stored=True)
_list = Group("What to send", "upload", stored=True)
_filter = Group("What to send", "upload validate", stored=True)
_what = Group("What to send", "upload", stored=True)
_how = Group("How to send", "upload", stored=True)
_run = Group("How to send", _RUN, stored=True)
_tus = Group("How to send", "", stored=True)
_resuming = Group("Resuming", "upload")
_output = Group("Output", f"{_RUN} {_SESSIONS}")
_report = Group("Output", _RUN, config="user")
_connection = Group("Connection", f"{_RUN} watch", stored=True)
_security = Group("Security", _CALLS, config="user")
_secret = Group("Security", "", config="none")
_extras = Group("Server extras", "upload", stored=True)


def _with_features(settings: type[T]) -> type[T]:
    """Add the options of the features to the table, each before the one that it names."""
    for feature in features():
        for one in feature.options:
            group = Group(one.section, one.commands, one.config, one.stored)
            parse = partial(_parsed, feature, one.parse) if one.parse else None
            resolve = partial(_resolved, feature, one.resolve) if one.resolve else None
            setattr(settings, one.name, group(one.default, one.text, parse, secret=one.secret, resolve=resolve))
            rows = list(settings.__annotations__.items())
            at = [name for name, _ in rows].index(one.before)
            rows.insert(at, (one.name, one.annotation))
            settings.__annotations__ = dict(rows)
    return settings


def _parsed(feature: Feature, parser: str, raw: object) -> Any:
    return (feature.load(parser) if ":" in parser else getattr(values, parser))(raw)


def _resolved(feature: Feature, resolve: str, value: object, env: Mapping[str, str]) -> Any:
    return feature.load(resolve)(value, env)


@dataclass(frozen=True, kw_only=True)
@_with_features
class Settings(AddedOptions):
    """The settings of a command. Times are in seconds, sizes in bytes; `jobs` is the number of parallel uploads.

    `server` may be empty where nothing is sent (`Feature.instead`) or with a `tus_endpoint`, which replaces it (and
    sets the protocol to tus), as does an `upload_url`.
    `notes` are messages about ignored values. `distrust` says why the server gets neither the token nor secret headers:
    the user has not named it. It is empty for a server that gets them.
    """

    profile: str | None = _general(None, "NAME  Use the settings of [profile.NAME] in the config files.", values.text)

    from_file: Path | Literal["-"] | None = _list(
        None,
        "FILE|-  Send the files listed in FILE, or on standard input (-).",
        values.path_or_stdin,
        config="user",
        stored=False,
    )
    from_format: Literal["auto", "plain", "nul", "csv", "jsonl"] = _list(
        "auto", "NAME  Format of the list: auto (by suffix), plain, nul, csv or jsonl."
    )
    null: bool = _list(False, "-0  Paths of the list end with NUL, as from find -print0 (--null is deprecated).")
    lenient: bool = _list(False, "Skip invalid lines of the list and send the rest (exit code 4).", commands=_RUN)
    name: str | None = _list(
        None,
        "NAME  Name on the server of standard input, the PATH -.",
        values.text,
        commands="upload",
        config="none",
        stored=False,
    )
    include: tuple[str, ...] = _filter(
        (), "GLOB  Send only matching files (gitignore syntax); repeatable.", values.text
    )
    exclude: tuple[str, ...] = _filter((), "GLOB  Skip matching files (gitignore syntax); repeatable.", values.text)
    exclude_from: tuple[Path, ...] = _filter(
        (),
        "FILE  Skip files that match the patterns in FILE (gitignore syntax); repeatable.",
        values.path,
        config="user",
    )
    min_size: int = _filter(0, "SIZE  Skip smaller files.", values.size(0))
    max_size: int | None = _filter(None, "SIZE  Skip larger files.", values.size(0, none=None))
    newer_than: Moment | None = _filter(
        None, "WHEN  Send only files changed since then: 2d, 1h30m or a date, as 2026-01-31.", or_none(values.moment)
    )
    follow_links: bool = _filter(False, "Follow symbolic links instead of skipping them.", config="user")
    check_first: bool = _what(False, "Find all files before the first one is sent, to know the totals.")
    dest: str | None = _list(None, "DIR  Store the files below this directory on the server.", values.directory)
    if_exists: Literal["rename", "fail"] = _what(
        "rename", "NAME  If a name is taken on the server: rename the new file, or fail.", commands="upload"
    )
    resend: bool = _what(False, "Send all files, also those of earlier runs that the server has.")
    skip_existing: bool = _what(False, "Skip files that are already on the server, whoever sent them.")
    trust_receipts: bool = _what(
        False, "With --skip-existing: if the server can't be asked, rely on earlier runs.", commands="upload"
    )

    protocol: Literal["auto", "batch", "tus", "ietf"] = _how(
        "auto", "NAME  Upload protocol: auto, batch, tus, or ietf (experimental: resumable uploads of the IETF)."
    )
    metadata: tuple[Metadata, ...] = _how(
        (),
        "KEY=TEMPLATE  With --tus-endpoint: send this metadata of each file; repeatable.",
        values.metadata,
    )
    jobs: int | Literal["auto"] = _how(
        "auto",
        "-j N|auto  Parallel uploads; in batch mode, parallel sessions.",
        values.whole(1, auto="auto"),
        commands=_RUN,
    )
    chunk_size: int | Literal["auto"] = _how(
        "auto", "SIZE|auto  Maximum bytes in one tus request.", values.size(LEAST_CHUNK, auto="auto")
    )
    chunk_rule: ChunkRule | None = _tus(
        None,
        "LEAST-MOST/MULTIPLE  Chunk sizes that a tus server accepts; the last chunk may be smaller.",
        or_none(values.chunk_rule),
    )
    retry_status: tuple[int, ...] = _tus(
        (), "N  Statuses of a tus server that are retried, as those of a lock.", values.whole(400)
    )
    id_header: str | None = _tus(
        None, "NAME  Header of a tus server's answers with the ID of the file.", or_none(values.text)
    )
    place: tuple[str, ...] = _tus(
        (), "KEY  Metadata under which a tus server stores a file: equal values name the same file.", values.text
    )
    allowed_names: str | None = _tus(
        None,
        "REGEX  One character that a tus server takes in names of files, as [a-z0-9./].",
        or_none(values.character),
    )
    empty_files: bool = _tus(True, "Send empty files to a tus server.")
    empty_at_creation: bool = _tus(False, "Send no PATCH for an empty file: the tus server stores it at its creation.")
    bytes_at_creation: bool | None = _tus(
        None,
        "Send small files with their creation to a tus server that takes them so; none: if it tells new uploads.",
        or_none(values.switch),
    )
    parts: bool = _tus(True, "Send large files to a tus server in parts, if it joins them.")
    part_metadata: bool = _tus(True, "Send the metadata of a file with each of its parts to a tus server, too.")
    checksum_compared: bool = _tus(False, "Take a file for verified by its checksums: the tus server compares them.")
    checksum: Literal["auto", "none", "crc32c", "sha1", "sha256"] = _how(
        "auto", "NAME  Checksum of each tus chunk: auto, none, crc32c, sha1 or sha256."
    )
    pack: bool = _how(True, "Send many small files in one request if supported.")
    limit_rate: int | None = _run(
        None,
        "SIZE  Bandwidth limit per second, all files, at least 2K; none: no limit.",
        values.size(LEAST_RATE, why=" (servers end slower requests)", none=None),
    )
    retries: int = _how(5, "N  Retries for each file.", values.whole(0), commands=_RUN)
    finish_timeout: float = _run(
        1800.0, "TIME  Time that a tus server may take to store a file after its last byte.", values.seconds(zero=False)
    )
    deadline: float | None = _run(
        None,
        "TIME  Stop after this time (as 90, 10m or 1h30m) so that the run can be resumed.",
        values.seconds(zero=False, none=None),
        stored=False,
    )
    fail_fast: bool = _how(False, "Start no new file after the first failure.")
    resend_unknown: bool = _run(False, "Send a file again even if the server may have it (stored twice).")
    verify: bool = _run(False, "Compare the stored files with the local ones afterwards.")
    digest: bool = _run(False, "Compute the SHA-256 of each file as it is sent, for receipts and reports.")

    resume: bool = _resuming(True, "Resume an interrupted run of the same command.")
    cancel_on_interrupt: bool = _resuming(
        False, "On Ctrl-C, also cancel the session on the server.", commands="upload resume", stored=True
    )
    state_dir: Path | None = _resuming(
        None,
        "DIR  Directory of the resume journal. [default: the user's]",
        values.path,
        commands="upload resume runs watch cancel",
        config="user",
    )

    json: bool = _output(False, "Write JSON to stdout.", commands=f"{_CALLS} runs config")
    progress: Literal["auto", "live", "plain", "none"] = _output(
        "auto",
        "KIND  Progress display on stderr: auto, live, plain or none.",
        commands="upload resume watch",
    )
    quiet: bool = _output(False, "-q  Show only errors and failed files.", commands=_CALLS)
    verbose: int = _output(0, "-v  Show more detail; repeatable.", values.whole(0), commands=_CALLS)
    log_file: Path | None = _output(None, "FILE  Append a JSON log to FILE.", values.path, config="user")
    log_level: Literal["debug", "info", "warning", "error"] = _output(
        "info", "LEVEL  Minimum level in the log: debug, info, warning or error."
    )
    report: tuple[ReportFile, ...] = _report(
        (),
        f"FILE  Write a report; the suffix selects {report_suffixes()}; repeatable.",
        report_file,
    )
    failed_to: Path | None = _report(None, "FILE  Write a list of the failed files, for --from-file.", values.path)
    links: Path | None = _report(
        None, "FILE  Write the URL and the path of each file that is on the server.", values.path
    )

    server: str = _connection(
        "",
        "-s URL  Upload server. Without a scheme: http on loopback, else https.",
        addresses.server_url,
        commands=f"upload {_SESSIONS}",
    )
    tus_endpoint: str | None = _connection(
        None,
        "URL  Upload to this tus server, instead of --server.",
        addresses.tus_endpoint,
        commands="upload",
    )
    upload_url: str | None = _connection(
        None,
        "URL  Send one file to this upload, which a service has created.",
        or_none(addresses.upload_url),
        commands="upload",
        config="none",
        secret=True,
    )
    max_wait: float = _connection(
        1200.0,
        "TIME  Maximum time to wait for a rate limit (429), as 90 or 10m; none: no limit.",
        values.seconds(zero=True, none=math.inf),
        commands="upload resume watch",
    )
    wait_for_server: float = _connection(
        600.0,
        "TIME  Time to wait for an unreachable or full server; none: no limit.",
        values.seconds(zero=True, none=math.inf),
        commands=_RUN,
    )
    stall: float = _connection(30.0, "TIME  Warn after this time without progress.", values.seconds(zero=False))
    warn_latency: float | None = _connection(
        None, "MS  Warn when responses or messages take longer.", values.threshold("of milliseconds"), stored=False
    )
    warn_error_rate: float | None = _connection(
        None,
        "PERCENT  Warn when more of the last 50 attempts fail.",
        values.threshold("of percent", most=100.0),
        stored=False,
    )
    proxy: str | None = _connection(
        None,
        "URL  Use this HTTP or SOCKS proxy.",
        addresses.proxy_url,
        commands=_CALLS,
        config="user",
        secret=True,
        stored=False,
    )

    token: str | None = _secret(None, "", values.secret, secret=True)
    token_file: Path | None = _security(None, "FILE  Read the token from FILE.", values.path)
    token_command: str | None = _security(
        None, "CMD  Read the token from the output of CMD.", values.command, secret=True
    )
    session_secret: str | None = _secret(None, "", values.secret, secret=True)
    header: tuple[Header, ...] = _security((), "K:V  Send this header with every request; repeatable.", values.header)
    ca_bundle: Path | None = _security(
        None, "FILE  Trust these certificates (PEM).", values.path, must_exist="file or directory"
    )
    client_cert: Path | None = _security(
        None, "FILE  Client certificate with its key (PEM).", values.path, must_exist="file"
    )
    insecure: bool = _security(False, "Don't verify the server's certificate.")

    category: Literal["personal", "scenic"] = _extras("personal", "-c NAME  Category of the files: personal or scenic.")
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)
    """The sources that have set options, and their values; `source` knows which of them still apply."""
    notes: tuple[str, ...] = ()
    distrust: str = ""
    _command: TokenCommand | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        command = TokenCommand(self.token_command, str(self.source("token_command"))) if self.token_command else None
        object.__setattr__(self, "_command", command)

    @property
    def target_url(self) -> str:
        """The root of the host of the upload URL if there is one, else the tus endpoint, else the server."""
        if self.upload_url:
            return f"{addresses.origin(self.upload_url)}/"
        return self.tus_endpoint or self.server

    @property
    def trusted_url(self) -> str:
        """The URL whose origin gets the token and the headers: the tus endpoint or the server.

        Where none is named, an upload URL gets the headers, unless there is a token, which may be for another server.
        """
        if self.upload_url and not (self.tus_endpoint or self.server):
            return "" if self.has_token else self.target_url
        return self.tus_endpoint or self.server

    @property
    def token_withheld(self) -> bool:
        """True where there is a token or a secret header, and the server does not get it."""
        return bool(self.distrust) and (self.has_token or any(header.secret for header in self.header))

    @property
    def given_secret(self) -> str:
        """The secret of a session from the environment; empty without one, and where it is withheld as a token is."""
        return "" if self.distrust else self.session_secret or ""

    @property
    def has_token(self) -> bool:
        """True where a token is given in any way."""
        return bool(self.token or self.token_file or self.token_command)

    @property
    def foreign(self) -> bool:
        """True for a tus server without sessions: only `targets` and the settings ask (`Terms` says what follows)."""
        return bool(self.tus_endpoint or self.upload_url)

    @property
    def base_url(self) -> str:
        """The root of a server with sessions; empty for a tus endpoint."""
        return "" if self.foreign else self.server

    @property
    def session_category(self) -> str | None:
        """The category of the run's sessions; None for a tus endpoint, which has neither."""
        return None if self.foreign else self.category

    @property
    def target_option(self) -> str:
        """The name of the option that sets the server, also the one beside an upload URL."""
        return "tus_endpoint" if self.tus_endpoint else "server"

    def source(self, name: str) -> Source:
        """Return the source of the option's value.

        It is of the layer `DEFAULT` for the default, and for a value that the program has set, with the flag as name.
        """
        value = getattr(self, name)
        if name in self.sources and self.sources[name].value == value:
            return self.sources[name]
        return DEFAULT if value == OPTIONS[name].default else Source(Layer.DEFAULT, OPTIONS[name].flag)

    def changed(self, name: str, value: Any, source: Source) -> Self:
        """Return the settings with another value of an option, which has this source."""
        return replace(self, **{name: value}, sources={**self.sources, name: source._replace(value=value)})

    def given_as(self, name: str) -> str:
        """Return the option as the user has given it: the flag, the variable, or the key and its file."""
        source = self.source(name)
        if source.layer is Layer.DEFAULT:
            return OPTIONS[name].flag
        file, colon, key = source.name.rpartition(": ")
        return f"{key} in {file}" if colon else source.name

    @property
    def state_path(self) -> Path:
        """The directory of the journal. Raises `UsageError` for a user without a home directory."""
        directory = self.state_dir or user_state_directory()
        if directory is None:
            raise UsageError("this user has no home directory", hint="set HOME, or name a directory with --state-dir")
        return directory

    @property
    def hashes(self) -> bool:
        """Whether the SHA-256 of each file is computed: with `--digest`, to compare it, for a report with digests."""
        return self.digest or self.consumes or any(report.digests for report in self.report)

    @property
    def consumes(self) -> bool:
        """Whether local files are compared with what the server has, and may be gone after that (`Feature`)."""
        return any(feature.consumes for feature in used(self))

    @property
    def unending(self) -> bool:
        """Whether the files to send have no end: the run outlasts outages, and sends a file that changes again."""
        return any(feature.unending for feature in used(self))

    @property
    def terms(self) -> dict[str, Any]:
        """Fields of the `Terms` of a tus server without sessions, as features know them beforehand."""
        found: dict[str, Any] = {}
        for feature in used(self):
            found |= feature.load(feature.terms)(self) if feature.terms else {}
        return found

    @property
    def awaits(self) -> list[str]:
        """What features need of the last answer for a stored file (`Feature`); empty where none waits for more."""
        return [name for feature in used(self) if feature.awaits for name in feature.load(feature.awaits)(self)]

    @property
    def names_defaults(self) -> bool:
        """Whether an option names defaults of others (`Feature`)."""
        return any(feature.defaults for feature in used(self))

    @property
    def skips_sent(self) -> bool:
        """Whether files of earlier runs are skipped where the server's lookup confirms their receipts."""
        return self.resume and not self.resend and not self.skip_existing

    @property
    def headers(self) -> dict[str, str]:
        """The headers of `--header`, to be sent with each request; without secret ones where these are withheld."""
        return {header.name: header.value for header in self.header if not (self.distrust and header.secret)}

    @property
    def most_connections(self) -> int | None:
        """How many connections `--limit-rate` leaves LEAST_RATE each; None without it."""
        return None if self.limit_rate is None else max(1, self.limit_rate // LEAST_RATE)

    def bearer(self, *, refresh: bool = False, stopped: Callable[[], bool] = lambda: False) -> str | None:
        """Return the token, or None if there is none or it is withheld.

        The source with the highest precedence wins; within one source the order is token, file, command. The file is
        read each time; the command runs once, and again for `refresh`. A pipe without another token is None then.
        Raises `UsageError`, without the token, and `Interrupted` once `stopped` returns True during a wait.
        """
        given = [name for name in ("token", "token_file", "token_command") if getattr(self, name)]
        first = min(given, key=lambda name: self.source(name).layer.rank, default=None)
        if first is None or self.distrust:
            return None
        if first == "token_command" and self._command:
            return self._command.token(refresh=refresh, stopped=stopped)
        if first == "token_file" and self.token_file:
            return token_from_file(self.token_file, str(self.source(first)), stopped, refresh=refresh)
        return self.token


def patience(settings: Settings, name: str) -> float:
    """Return one of `LIMITS_OF_WAITING`, in seconds: an unending run has none, unless somebody has set it."""
    limit: float = getattr(settings, name)
    return math.inf if settings.unending and settings.source(name) is DEFAULT else limit


def _options() -> dict[str, Option]:
    """Return the options by name, also for the commands of features."""
    found = {spec.name: Option.of(spec) for spec in fields(Settings) if spec.metadata}
    for command in (command for feature in features() for command in feature.commands):
        for name in command.options.split():
            found[name] = found[name]._replace(commands=(*found[name].commands, command.name))
    return found


OPTIONS: Mapping[str, Option] = _options()
SECTIONS = tuple(dict.fromkeys(option.section for option in OPTIONS.values()))
"""The sections of the help."""
