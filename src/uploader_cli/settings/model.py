"""The settings: one frozen dataclass, which is also the table of options.

Each field declares how its value is parsed and which sources may set it; flags, environment variables, config keys
and their checks follow from it. `resolve` reads all sources; `Settings(server=…, retries=2)` sets values directly.
"""

# ruff: noqa: RUF009 - `option` is a field specifier: each call makes its own `dataclasses.field`
# Annotations are evaluated here: they determine parsers.
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from uploader_cli.errors import UsageError
from uploader_cli.settings import shard, values
from uploader_cli.settings.bearer import TokenCommand, token_from_file
from uploader_cli.settings.places import user_state_directory
from uploader_cli.settings.values import ChunkRule, Header, Metadata, Moment, ReportFile, or_none

T = TypeVar("T")

LEAST_CHUNK = 1024
LEAST_RATE = 2048
"""Least bytes per second of a connection with `--limit-rate`: the bundled server ends requests below 1,024."""
NONE = ("limit_rate", "shard", "max_size", "newer_than", "preset", "chunk_rule", "id_header", "upload_url", "on")
"""Options whose stored value is the word none if they have none."""
NAMED_BY_DIRECTORY = "named_by_directory"
"""Key of a stored run whose server only the config of a working directory named: no secret may be sent there."""


class Layer(StrEnum):
    """The kinds of source, highest precedence first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    DIRECTORY_PROFILE = "profile of the working directory"
    USER_PROFILE = "profile"
    WORKING_DIRECTORY = "working directory"
    USER_CONFIG = "user config"
    DIRECTORY_PRESET = "preset of the working directory"
    PRESET = "preset"
    DEFAULT = "default"

    @property
    def rank(self) -> int:
        """0 for the highest precedence."""
        return list(Layer).index(self)

    @property
    def untrusted(self) -> bool:
        """True for the working directory, whose config may be from somebody else."""
        return self in (Layer.WORKING_DIRECTORY, Layer.DIRECTORY_PROFILE, Layer.DIRECTORY_PRESET)


class Source(NamedTuple):
    """The source of one value. `name` is for users: `--retries`, `UPLOADER_RETRIES`, or file and key."""

    layer: Layer
    name: str

    def __str__(self) -> str:
        return self.name


DEFAULT = Source(Layer.DEFAULT, "default")


class Option(NamedTuple):
    """One setting. `names` are its allowed values, where these are names.

    `allow_cwd_config`: the config of a working directory may set it, which may be from somebody else. `stored`: it
    defines a run and is stored to resume it.
    """

    name: str
    default: Any
    parse: Callable[[object], Any]
    names: tuple[str, ...] = ()
    many: bool = False
    allow_cwd_config: bool = True
    in_config: bool = True
    on_command_line: bool = True
    must_exist: bool = False
    may_be_directory: bool = False
    stored: bool = False

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"UPLOADER_{self.name.upper()}"

    def ways(self, user_config: Path | None = None) -> str:
        """Return the ways to set the option, for a hint."""
        ways = [self.flag] if self.on_command_line else ["--token-file", "--token-command"] * (self.name == "token")
        return ", ".join([*ways, self.variable]) + (f" or {user_config}" if user_config and self.in_config else "")


def option(parse: Callable[[object], Any] | None = None, *, default: T, shown: bool = True, **spec: bool) -> T:
    """Declare a field of `Settings`; `spec` are fields of `Option`. A boolean or a `Literal` needs no parser."""
    return field(default=default, repr=shown, metadata={"parse": parse, "spec": spec})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a command. Times are in seconds, sizes in bytes; `jobs` is the number of parallel uploads.

    `server` may be empty for a dry run or with a `tus_endpoint`, which replaces it (and sets the protocol to tus), as
    does an `upload_url`.
    `sources` has the source of each option, `notes` are messages about ignored values. `distrust` says why the server
    gets neither the token nor secret headers: the user has not named it. It is empty for a server that gets them.
    """

    profile: str | None = option(values.text, default=None, in_config=False, stored=True)
    server: str = option(values.server_url, default="", stored=True)
    category: Literal["personal", "scenic"] = option(default="personal", stored=True)
    protocol: Literal["auto", "batch", "tus"] = option(default="auto", stored=True)
    tus_endpoint: str | None = option(values.endpoint_url, default=None, stored=True)
    upload_url: str | None = option(
        or_none(values.upload_url), default=None, shown=False, allow_cwd_config=False, in_config=False, stored=True
    )
    preset: str | None = option(or_none(values.text), default=None, stored=True)
    metadata: tuple[Metadata, ...] = option(values.metadata, default=(), many=True, stored=True)
    jobs: int | Literal["auto"] = option(values.whole(1, auto="auto"), default="auto", stored=True)
    chunk_size: int | Literal["auto"] = option(values.size(LEAST_CHUNK, auto="auto"), default="auto", stored=True)
    chunk_rule: ChunkRule | None = option(or_none(values.chunk_rule), default=None, stored=True, on_command_line=False)
    retry_status: tuple[int, ...] = option(values.whole(400), default=(), many=True, stored=True, on_command_line=False)
    id_header: str | None = option(or_none(values.text), default=None, stored=True, on_command_line=False)
    place: tuple[str, ...] = option(values.text, default=(), many=True, stored=True, on_command_line=False)
    checksum: Literal["auto", "none", "crc32c", "sha1", "sha256"] = option(default="auto", stored=True)
    pack: bool = option(default=True, stored=True)
    limit_rate: int | None = option(
        values.size(LEAST_RATE, why=" (servers end slower requests)", none=None), default=None, stored=True
    )
    include: tuple[str, ...] = option(values.text, default=(), many=True, stored=True)
    exclude: tuple[str, ...] = option(values.text, default=(), many=True, stored=True)
    exclude_from: tuple[Path, ...] = option(values.path, default=(), many=True, allow_cwd_config=False, stored=True)
    min_size: int = option(values.size(0), default=0, stored=True)
    max_size: int | None = option(values.size(0, none=None), default=None, stored=True)
    newer_than: Moment | None = option(or_none(values.moment), default=None, stored=True)
    shard: str | None = option(or_none(shard.parse), default=None, in_config=False, stored=True)
    follow_links: bool = option(default=False, allow_cwd_config=False, stored=True)
    dest: str | None = option(values.directory, default=None, stored=True)
    if_exists: Literal["rename", "fail"] = option(default="rename", stored=True)
    from_file: Path | Literal["-"] | None = option(values.path_or_stdin, default=None, allow_cwd_config=False)
    from_format: Literal["auto", "plain", "nul", "csv", "jsonl"] = option(default="auto", stored=True)
    null: bool = option(default=False, stored=True)
    lenient: bool = option(default=False, stored=True)
    name: str | None = option(values.text, default=None, in_config=False)
    skip_existing: bool = option(default=False, stored=True)
    trust_receipts: bool = option(default=False, stored=True)
    dry_run: bool = option(default=False)
    on: str | None = option(or_none(values.cluster), default=None, in_config=False, allow_cwd_config=False, stored=True)
    retries: int = option(values.whole(0), default=5, stored=True)
    max_wait: float = option(values.seconds(zero=True), default=1200.0, stored=True)
    wait_for_server: float = option(values.seconds(zero=True), default=600.0, stored=True)
    stall: float = option(values.seconds(zero=False), default=30.0, stored=True)
    warn_latency: float | None = option(values.threshold("of milliseconds"), default=None)
    warn_error_rate: float | None = option(values.threshold("of percent", most=100.0), default=None)
    deadline: float | None = option(values.seconds(zero=False, none=None), default=None)
    fail_fast: bool = option(default=False, stored=True)
    resend_unknown: bool = option(default=False, stored=True)
    resume: bool = option(default=True)
    verify: bool = option(default=False, stored=True)
    digest: bool = option(default=False, stored=True)
    analyze: Literal["none", "content", "fusion", "music"] = option(default="none", stored=True)
    analysis_to: Path | None = option(values.path, default=None, allow_cwd_config=False)
    cancel_on_interrupt: bool = option(default=False, stored=True)
    state_dir: Path | None = option(values.path, default=None, allow_cwd_config=False)
    json: bool = option(default=False)
    progress: Literal["auto", "live", "plain", "none"] = option(default="auto")
    quiet: bool = option(default=False)
    verbose: int = option(values.whole(0), default=0)
    log_file: Path | None = option(values.path, default=None, allow_cwd_config=False)
    log_level: Literal["debug", "info", "warning", "error"] = option(default="info")
    report: tuple[ReportFile, ...] = option(values.report_file, default=(), many=True, allow_cwd_config=False)
    failed_to: Path | None = option(values.path, default=None, allow_cwd_config=False)
    links: Path | None = option(values.path, default=None, allow_cwd_config=False)
    metrics_file: Path | None = option(values.path, default=None, allow_cwd_config=False)
    on_failure: str | None = option(values.command, default=None, shown=False, allow_cwd_config=False)
    token: str | None = option(
        values.secret, default=None, shown=False, allow_cwd_config=False, in_config=False, on_command_line=False
    )
    token_file: Path | None = option(values.path, default=None, allow_cwd_config=False)
    token_command: str | None = option(values.command, default=None, shown=False, allow_cwd_config=False)
    session_secret: str | None = option(
        values.secret, default=None, shown=False, allow_cwd_config=False, in_config=False, on_command_line=False
    )
    header: tuple[Header, ...] = option(values.header, default=(), many=True, allow_cwd_config=False)
    ca_bundle: Path | None = option(
        values.path, default=None, allow_cwd_config=False, must_exist=True, may_be_directory=True, stored=True
    )
    client_cert: Path | None = option(values.path, default=None, allow_cwd_config=False, must_exist=True, stored=True)
    insecure: bool = option(default=False, allow_cwd_config=False)
    proxy: str | None = option(values.proxy_url, default=None, shown=False, allow_cwd_config=False, stored=True)

    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    distrust: str = ""
    _command: TokenCommand | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        command = TokenCommand(self.token_command, self._named("token_command")) if self.token_command else None
        object.__setattr__(self, "_command", command)

    @property
    def target_url(self) -> str:
        """The root of the host of the upload URL if there is one, else the tus endpoint, else the server."""
        if self.upload_url:
            return f"{values.origin(self.upload_url)}/"
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
        """True for a tus server without sessions."""
        return bool(self.tus_endpoint or self.upload_url)

    @property
    def target_option(self) -> str:
        """The name of the option that sets the server, also the one beside an upload URL."""
        return "tus_endpoint" if self.tus_endpoint else "server"

    def given_as(self, name: str) -> str:
        """Return the option as the user has given it: the flag, the variable, or the key and its file."""
        source = self.sources.get(name, DEFAULT)
        if source is DEFAULT:
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
        """Whether the SHA-256 of each file is computed: with `--digest`, and for a report that lists digests."""
        return self.digest or any(report.kind == "sha256" for report in self.report)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of `--header`, to be sent with each request; without secret ones where these are withheld."""
        return {header.name: header.value for header in self.header if not (self.distrust and header.secret)}

    @property
    def most_connections(self) -> int | None:
        """How many connections `--limit-rate` leaves LEAST_RATE each; None without it."""
        return None if self.limit_rate is None else max(1, self.limit_rate // LEAST_RATE)

    def storable(self) -> dict[str, str | list[str] | bool]:
        """Return the options that define a run, as JSON values for `resolve(flags, stored=…)`.

        They are complete, so that neither the environment nor a later config file changes the run. Secrets (token,
        header, a proxy with user and password) and `insecure` are not included. `resume` is always on.
        """
        stored: dict[str, str | list[str] | bool] = {"resume": True, "dest": ".", **dict.fromkeys(NONE, "none")}
        for name, spec in OPTIONS.items():
            value = getattr(self, name)
            unused = {"server": self.tus_endpoint or not self.server, "category": self.foreign}
            if not spec.stored or unused.get(name):
                continue
            if spec.many:
                items = [str(item.absolute() if isinstance(item, Path) else item) for item in value]
                stored[name] = items or ""  # an empty list would mark an unused flag
            elif isinstance(value, bool):
                stored[name] = value
            elif isinstance(value, Path):
                stored[name] = str(value.absolute())
            elif value is not None and not (name == "proxy" and "@" in value):
                stored[name] = str(value)
        if self.distrust or self.sources.get(self.target_option, DEFAULT).layer.untrusted:
            stored[NAMED_BY_DIRECTORY] = True
        return stored

    def bearer(self, *, refresh: bool = False, stopped: Callable[[], bool] = lambda: False) -> str | None:
        """Return the token, or None if there is none or it is withheld.

        The source with the highest precedence wins; within one source the order is token, file, command. The file is
        read each time; the command runs once, and again for `refresh`. A pipe without another token is None then.
        Raises `UsageError`, without the token, and `Interrupted` once `stopped` returns True during a wait.
        """
        given = [name for name in ("token", "token_file", "token_command") if getattr(self, name)]
        first = min(given, key=lambda name: self.sources.get(name, DEFAULT).layer.rank, default=None)
        if first is None or self.distrust:
            return None
        if first == "token_command" and self._command:
            return self._command.token(refresh=refresh, stopped=stopped)
        if first == "token_file" and self.token_file:
            return token_from_file(self.token_file, self._named(first), stopped, refresh=refresh)
        return self.token

    def _named(self, name: str) -> str:
        return self.sources[name].name if name in self.sources else name


def _option(spec: Field[Any]) -> Option:
    names = get_args(spec.type) if get_origin(spec.type) is Literal else ()
    parse = spec.metadata["parse"] or (values.one_of(*names) if names else values.switch)
    return Option(spec.name, spec.default, parse, names, **spec.metadata["spec"])


OPTIONS: Mapping[str, Option] = {spec.name: _option(spec) for spec in fields(Settings) if spec.metadata}
