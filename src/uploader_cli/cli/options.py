"""The options that commands share, and the way from what was typed to `Settings`.

Values stay text here: `settings` reads flags, environment and config files with the same parsers and the same words.
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


def _option(
    name: str,
    *short: str,
    metavar: str | None = None,
    help: str,  # noqa: A002
    count: bool = False,
    default: str = "",
    candidates: Candidates | None = None,
) -> Any:
    """A flag of the table; its help also tells the environment variable and the default."""
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
    _option("server", "-s", metavar="URL", help="The upload server. Without a scheme: http on loopback, else https."),
]
Category = Annotated[
    str | None, _option("category", "-c", metavar="NAME", help="Category of the files: personal or scenic.")
]
Protocol = Annotated[str | None, _option("protocol", metavar="NAME", help="How bytes travel: auto, batch or tus.")]
TusEndpoint = Annotated[
    str | None, _option("tus_endpoint", metavar="URL", help="Send to this tus server instead; it needs no --server.")
]
Jobs = Annotated[
    str | None,
    _option("jobs", "-j", metavar="N|auto", help="Parallel uploads; in batch mode sessions at once."),
]
ChunkSize = Annotated[
    str | None, _option("chunk_size", metavar="SIZE|auto", help="Bytes in one request of tus at most.")
]
Checksum = Annotated[
    str | None,
    _option("checksum", metavar="NAME", help="Checksum of each chunk in tus: auto, none, sha1 or sha256."),
]
Pack = Annotated[bool | None, _option("pack", default="on", help="Send many small files in one request where offered.")]
LimitRate = Annotated[
    str | None, _option("limit_rate", metavar="SIZE", help="Bytes a second at most, over all files; none: no limit.")
]
Include = Annotated[
    list[str] | None, _option("include", metavar="GLOB", help="Send only what matches (gitignore style); repeatable.")
]
Exclude = Annotated[
    list[str] | None, _option("exclude", metavar="GLOB", help="Leave out what matches (gitignore style); repeatable.")
]
Shard = Annotated[
    str | None, _option("shard", metavar="I/N|auto", help="Send only the Ith of N parts, so that N runs send all.")
]
FollowLinks = Annotated[bool | None, _option("follow_links", help="Follow symbolic links instead of skipping them.")]
FromFile = Annotated[
    str | None,
    _option("from_file", metavar="FILE|-", help="Send the files that FILE lists, or standard input (-)."),
]
FromFormat = Annotated[
    str | None,
    _option("from_format", metavar="NAME", help="How it is written: auto (by its suffix), plain, nul, csv or jsonl."),
]
Null = Annotated[bool | None, _option("null", "-0", help="The list has a NUL after each path, as of find -print0.")]
Lenient = Annotated[
    bool | None, _option("lenient", help="Send the rest where lines of the list can't be used (then exit 4).")
]
SkipExisting = Annotated[bool | None, _option("skip_existing", help="Skip files that the server has already.")]
TrustReceipts = Annotated[
    bool | None,
    _option("trust_receipts", help="With --skip-existing: skip files sent before if the server can't be asked."),
]
DryRun = Annotated[bool | None, _option("dry_run", help="Print the plan and send nothing.")]
Retries = Annotated[str | None, _option("retries", metavar="N", help="New attempts for each file.")]
MaxWait = Annotated[
    str | None, _option("max_wait", metavar="S", help="Seconds to wait at most for a server that says 'later'.")
]
WaitForServer = Annotated[
    str | None,
    _option("wait_for_server", metavar="S", help="Seconds to wait for a server that is unreachable or full."),
]
Stall = Annotated[str | None, _option("stall", metavar="S", help="Warn when nothing has moved for this many seconds.")]
WarnLatency = Annotated[
    str | None, _option("warn_latency", metavar="MS", help="Warn when answers or messages take longer than this.")
]
WarnErrorRate = Annotated[
    str | None,
    _option("warn_error_rate", metavar="PERCENT", help="Warn when more of the last 50 tries fail than this."),
]
FailFast = Annotated[bool | None, _option("fail_fast", help="Start no new file after the first failure.")]
ResendUnknown = Annotated[
    bool | None,
    _option("resend_unknown", help="Send a file again although the server may have it: it may be stored twice."),
]
Resume = Annotated[
    bool | None, _option("resume", default="on", help="Go on with what an interrupted run of the same command began.")
]
Verify = Annotated[
    bool | None, _option("verify", help="Afterwards read back what the server stored, where it lets one.")
]
Analyze = Annotated[
    str | None,
    _option("analyze", metavar="KIND", help="Have the server analyse what was uploaded: content, fusion or music."),
]
AnalysisTo = Annotated[
    str | None,
    _option("analysis_to", metavar="FILE|DIR", help="Save the result there; else in the working directory."),
]
CancelOnInterrupt = Annotated[
    bool | None, _option("cancel_on_interrupt", help="On Ctrl-C also cancel the session on the server.")
]
StateDir = Annotated[
    str | None, _option("state_dir", metavar="DIR", help="Keep what is needed to resume here. [default: the user's]")
]
Json = Annotated[bool | None, _option("json", help="Write JSON to stdout.")]
Progress = Annotated[
    str | None, _option("progress", metavar="KIND", help="What stderr shows: auto, live, plain or none.")
]
Quiet = Annotated[bool | None, _option("quiet", "-q", help="Show only errors and the summary of failures.")]
Verbose = Annotated[int, _option("verbose", "-v", help="Say more; repeatable.", count=True)]
LogFile = Annotated[str | None, _option("log_file", metavar="FILE", help="Append a log of what happened to FILE.")]
LogLevel = Annotated[
    str | None,
    _option("log_level", metavar="LEVEL", help="What goes into the log: debug, info, warning or error, and up."),
]
Report = Annotated[
    list[str] | None,
    _option("report", metavar="FILE", help="Write a report: .json, .csv, .xml (JUnit) or .md by suffix; repeatable."),
]
OnFailure = Annotated[
    str | None,
    _option("on_failure", metavar="CMD", help="Run this shell command if somebody has to look; it reads the report."),
]
FailedTo = Annotated[
    str | None, _option("failed_to", metavar="FILE", help="Write a list of what failed, for another --from-file.")
]
TokenFile = Annotated[str | None, _option("token_file", metavar="FILE", help="Read the token from FILE.")]
TokenCommand = Annotated[
    str | None, _option("token_command", metavar="CMD", help="Take the token from what the shell command CMD prints.")
]
Header = Annotated[
    list[str] | None, _option("header", metavar="K:V", help="Send this header with every call; repeatable.")
]
CaBundle = Annotated[str | None, _option("ca_bundle", metavar="FILE", help="Trust these certificates (PEM).")]
ClientCert = Annotated[
    str | None, _option("client_cert", metavar="FILE", help="Show this certificate to the server (PEM with its key).")
]
Insecure = Annotated[bool | None, _option("insecure", help="Don't check the server's certificate.")]
Proxy = Annotated[str | None, _option("proxy", metavar="URL", help="Go through this HTTP proxy.")]


def flags(given: Mapping[str, object]) -> dict[str, object]:
    """The settings among a command's parameters by name, None for a flag that was not used."""
    found = {name: value for name, value in given.items() if name in OPTIONS}
    found["verbose"] = found.get("verbose") or None  # typer counts from 0: not used
    return found


def load(given: Mapping[str, object], *, need_server: bool = True) -> Settings:
    """The settings for a command; `given` are its parameters by name, those that are no settings are left alone.

    Notes about what was ignored go to stderr, unless `--quiet`. Raises `UsageError`.
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
    """The working directory. Raises `UsageError` where it is gone."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError("the working directory doesn't exist any more", hint="cd to one that does") from None


def valid_uuid(value: str, what: str) -> str:
    """`value` in its usual form, where it is a UUID, as the ids of sessions and files are. Raises `UsageError`."""
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise UsageError(
            f"{what}: {value!r} is no id", hint="an id looks like 3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b"
        ) from None
