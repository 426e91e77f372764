"""The options that several commands share, and how their values become `Settings`.

Values stay text here: `settings` parses flags, environment and config files with the same code.
"""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from uploader_cli.cli.candidates import Candidates, among, profile_names
from uploader_cli.errors import UsageError
from uploader_cli.settings import OPTIONS, Settings, resolve, user_config_file

GROUPS = {
    "What to send": "from_file from_format null lenient include exclude shard follow_links "
    "skip_existing trust_receipts dry_run",
    "How to send": "protocol jobs chunk_size checksum pack limit_rate retries fail_fast resend_unknown verify",
    "Resuming": "resume cancel_on_interrupt state_dir",
    "Output": "json json_schema progress quiet verbose log_file log_level report failed_to on_failure",
    "Connection": "server tus_endpoint max_wait wait_for_server stall warn_latency warn_error_rate proxy",
    "Security": "token_file token_command header ca_bundle client_cert insecure",
    "Server extras": "category analyze analysis_to",
}
"""The sections of the help and their options. Options in no section are listed first."""


def group_of(name: str) -> str | None:
    """Return the help section of an option."""
    return next((title for title, names in GROUPS.items() if name in names.split()), None)


def _option(
    name: str,
    *short: str,
    metavar: str | None = None,
    help: str,  # noqa: A002
    count: bool = False,
    default: str = "",
    candidates: Candidates | None = None,
) -> Any:
    """Declare a flag of the option table. Its help ends with the environment variable and the default."""
    option = OPTIONS[name]
    if not default and not count:
        default = f"{option.default:g}" if type(option.default) in (int, float) else option.default or ""
    default = f"; default: {default}" if isinstance(default, str) and default else ""
    switch = isinstance(option.default, bool)
    return typer.Option(
        f"{option.flag}/--no-{option.flag[2:]}" if switch else option.flag,
        *short,
        metavar=metavar,
        help=f"{help} [env: {option.variable}{default}]",
        show_default=False,
        count=count,
        autocompletion=candidates or (among(option.names) if option.names else None),
        rich_help_panel=group_of(name),
    )


Profile = Annotated[
    str | None,
    _option(
        "profile",
        metavar="NAME",
        help="Use the settings of [profile.NAME] in the config files.",
        candidates=profile_names,
    ),
]
Server = Annotated[
    str | None,
    _option("server", "-s", metavar="URL", help="Upload server. Without a scheme: http on loopback, else https."),
]
Category = Annotated[
    str | None, _option("category", "-c", metavar="NAME", help="Category of the files: personal or scenic.")
]
Protocol = Annotated[str | None, _option("protocol", metavar="NAME", help="Upload protocol: auto, batch or tus.")]
TusEndpoint = Annotated[
    str | None, _option("tus_endpoint", metavar="URL", help="Upload to this tus server, instead of --server.")
]
Jobs = Annotated[
    str | None,
    _option("jobs", "-j", metavar="N|auto", help="Parallel uploads; in batch mode, parallel sessions."),
]
ChunkSize = Annotated[str | None, _option("chunk_size", metavar="SIZE|auto", help="Maximum bytes in one tus request.")]
Checksum = Annotated[
    str | None,
    _option("checksum", metavar="NAME", help="Checksum of each tus chunk: auto, none, sha1 or sha256."),
]
Pack = Annotated[bool | None, _option("pack", default="on", help="Send many small files in one request if supported.")]
LimitRate = Annotated[
    str | None, _option("limit_rate", metavar="SIZE", help="Bandwidth limit per second, all files; none: no limit.")
]
Include = Annotated[
    list[str] | None,
    _option("include", metavar="GLOB", help="Send only matching files (gitignore syntax); repeatable."),
]
Exclude = Annotated[
    list[str] | None, _option("exclude", metavar="GLOB", help="Skip matching files (gitignore syntax); repeatable.")
]
Shard = Annotated[
    str | None, _option("shard", metavar="I/N|auto", help="Send only part I of N; auto reads it from the job array.")
]
FollowLinks = Annotated[bool | None, _option("follow_links", help="Follow symbolic links instead of skipping them.")]
FromFile = Annotated[
    str | None,
    _option("from_file", metavar="FILE|-", help="Send the files listed in FILE, or on standard input (-)."),
]
FromFormat = Annotated[
    str | None,
    _option("from_format", metavar="NAME", help="Format of the list: auto (by suffix), plain, nul, csv or jsonl."),
]
Null = Annotated[bool | None, _option("null", "-0", help="Paths of the list end with NUL, as from find -print0.")]
Lenient = Annotated[
    bool | None, _option("lenient", help="Skip invalid lines of the list and send the rest (exit code 4).")
]
SkipExisting = Annotated[bool | None, _option("skip_existing", help="Skip files that are already on the server.")]
TrustReceipts = Annotated[
    bool | None,
    _option("trust_receipts", help="With --skip-existing: if the server can't be asked, rely on earlier runs."),
]
DryRun = Annotated[bool | None, _option("dry_run", help="Print the plan and send nothing.")]
Retries = Annotated[str | None, _option("retries", metavar="N", help="Retries for each file.")]
MaxWait = Annotated[
    str | None, _option("max_wait", metavar="S", help="Maximum seconds to wait for a rate limit (429).")
]
WaitForServer = Annotated[
    str | None,
    _option("wait_for_server", metavar="S", help="Seconds to wait for an unreachable or full server."),
]
Stall = Annotated[str | None, _option("stall", metavar="S", help="Warn after S seconds without progress.")]
WarnLatency = Annotated[
    str | None, _option("warn_latency", metavar="MS", help="Warn when responses or messages take longer.")
]
WarnErrorRate = Annotated[
    str | None,
    _option("warn_error_rate", metavar="PERCENT", help="Warn when more of the last 50 attempts fail."),
]
FailFast = Annotated[bool | None, _option("fail_fast", help="Start no new file after the first failure.")]
ResendUnknown = Annotated[
    bool | None,
    _option("resend_unknown", help="Send a file again even if the server may have it (stored twice)."),
]
Resume = Annotated[bool | None, _option("resume", default="on", help="Resume an interrupted run of the same command.")]
Verify = Annotated[bool | None, _option("verify", help="Compare the stored files with the local ones afterwards.")]
Analyze = Annotated[
    str | None,
    _option("analyze", metavar="KIND", help="Analyse the uploaded files: content, fusion or music."),
]
AnalysisTo = Annotated[
    str | None,
    _option("analysis_to", metavar="FILE|DIR", help="Save the analysis there. [default: the working directory]"),
]
CancelOnInterrupt = Annotated[
    bool | None, _option("cancel_on_interrupt", help="On Ctrl-C, also cancel the session on the server.")
]
StateDir = Annotated[
    str | None, _option("state_dir", metavar="DIR", help="Directory of the resume journal. [default: the user's]")
]
Json = Annotated[bool | None, _option("json", help="Write JSON to stdout.")]
Progress = Annotated[
    str | None, _option("progress", metavar="KIND", help="Progress display on stderr: auto, live, plain or none.")
]
Quiet = Annotated[bool | None, _option("quiet", "-q", help="Show only errors and failed files.")]
Verbose = Annotated[int, _option("verbose", "-v", help="Show more detail; repeatable.", count=True)]
LogFile = Annotated[str | None, _option("log_file", metavar="FILE", help="Append a JSON log to FILE.")]
LogLevel = Annotated[
    str | None,
    _option("log_level", metavar="LEVEL", help="Minimum level in the log: debug, info, warning or error."),
]
Report = Annotated[
    list[str] | None,
    _option(
        "report",
        metavar="FILE",
        help="Write a report; the suffix selects .json, .csv, .xml (JUnit) or .md; repeatable.",
    ),
]
OnFailure = Annotated[
    str | None,
    _option("on_failure", metavar="CMD", help="Run this command when a run needs attention; its stdin is the report."),
]
FailedTo = Annotated[
    str | None, _option("failed_to", metavar="FILE", help="Write a list of the failed files, for --from-file.")
]
TokenFile = Annotated[str | None, _option("token_file", metavar="FILE", help="Read the token from FILE.")]
TokenCommand = Annotated[
    str | None, _option("token_command", metavar="CMD", help="Read the token from the output of CMD.")
]
Header = Annotated[
    list[str] | None, _option("header", metavar="K:V", help="Send this header with every request; repeatable.")
]
CaBundle = Annotated[str | None, _option("ca_bundle", metavar="FILE", help="Trust these certificates (PEM).")]
ClientCert = Annotated[
    str | None, _option("client_cert", metavar="FILE", help="Client certificate with its key (PEM).")
]
Insecure = Annotated[bool | None, _option("insecure", help="Don't verify the server's certificate.")]
Proxy = Annotated[str | None, _option("proxy", metavar="URL", help="Use this HTTP proxy.")]


def flags(given: Mapping[str, object]) -> dict[str, object]:
    """Return the settings among a command's parameters; the value is None for a flag that was not used."""
    found = {name: value for name, value in given.items() if name in OPTIONS}
    found["verbose"] = found.get("verbose") or None  # typer counts from 0: not used
    return found


def load(given: Mapping[str, object], *, need_server: bool = True) -> Settings:
    """Resolve the settings of a command from its parameters by name, ignoring those that are no settings.

    Notes about ignored values go to stderr, unless `--quiet`. Raises `UsageError`.
    """
    settings = resolve(
        flags(given),
        env=os.environ,
        cwd=here(),
        user_config=user_config_file(),
        need_server=need_server,
        use_endpoint="tus_endpoint" in given,
    )
    if settings.notes:
        from uploader_cli.run.terminal import tell_notes

        tell_notes(settings)
    return settings


def here() -> Path:
    """Return the working directory. Raises `UsageError` if it was deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError("the working directory was deleted", hint="change to an existing directory") from None


def valid_uuid(value: str, what: str) -> str:
    """Return `value` as a canonical UUID, the form of session and file IDs. Raises `UsageError`."""
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise UsageError(
            f"{what}: {value!r} is not an ID", hint="an ID looks like 3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b"
        ) from None
