"""The options that several commands share, their completion, and how their values become `Settings`.

Values stay text here: `settings` parses flags, environment and config files with the same code.
"""

import inspect
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from uploader_cli.errors import UploaderError, UsageError
from uploader_cli.settings import OPTIONS, Settings, presets, profiles, resolve, user_config_file, working_directory

FLAGS: dict[str, dict[str, tuple[str, ...]]] = {
    "Options": {
        "profile": ("NAME", "Use the settings of [profile.NAME] in the config files."),
    },
    "What to send": {
        "from_file": ("FILE|-", "Send the files listed in FILE, or on standard input (-)."),
        "from_format": ("NAME", "Format of the list: auto (by suffix), plain, nul, csv or jsonl."),
        "null": ("", "Paths of the list end with NUL, as from find -print0 (--null is deprecated).", "-0"),
        "lenient": ("", "Skip invalid lines of the list and send the rest (exit code 4)."),
        "name": ("NAME", "Name on the server of standard input, the PATH -."),
        "include": ("GLOB", "Send only matching files (gitignore syntax); repeatable."),
        "exclude": ("GLOB", "Skip matching files (gitignore syntax); repeatable."),
        "exclude_from": ("FILE", "Skip files that match the patterns in FILE (gitignore syntax); repeatable."),
        "min_size": ("SIZE", "Skip smaller files."),
        "max_size": ("SIZE", "Skip larger files."),
        "newer_than": ("WHEN", "Send only files changed since then: 2d, 1h30m or a date, as 2026-01-31."),
        "shard": ("I/N|auto", "Send only part I of N; auto reads it from the job array."),
        "follow_links": ("", "Follow symbolic links instead of skipping them."),
        "dest": ("DIR", "Store the files below this directory on the server."),
        "if_exists": ("NAME", "If a name is taken on the server: rename the new file, or fail."),
        "skip_existing": ("", "Skip files that are already on the server."),
        "trust_receipts": ("", "With --skip-existing: if the server can't be asked, rely on earlier runs."),
        "dry_run": ("", "Print the plan with the destinations and send nothing.", "-n"),
    },
    "How to send": {
        "on": ("local:N|URL", "Run the import on N processes here, or on the Dask cluster dask://HOST:PORT."),
        "protocol": ("NAME", "Upload protocol: auto, batch or tus."),
        "preset": ("NAME", "With --tus-endpoint: options for cloudflare-stream, supabase, tusd or one of your own."),
        "metadata": ("KEY=TEMPLATE", "With --tus-endpoint: send this metadata of each file; repeatable."),
        "jobs": ("N|auto", "Parallel uploads; in batch mode, parallel sessions.", "-j"),
        "chunk_size": ("SIZE|auto", "Maximum bytes in one tus request."),
        "checksum": ("NAME", "Checksum of each tus chunk: auto, none, crc32c, sha1 or sha256."),
        "pack": ("", "Send many small files in one request if supported."),
        "limit_rate": ("SIZE", "Bandwidth limit per second, all files, at least 2K; none: no limit."),
        "retries": ("N", "Retries for each file."),
        "deadline": ("TIME", "Stop after this time (as 90, 10m or 1h30m) so that the run can be resumed."),
        "fail_fast": ("", "Start no new file after the first failure."),
        "resend_unknown": ("", "Send a file again even if the server may have it (stored twice)."),
        "verify": ("", "Compare the stored files with the local ones afterwards."),
        "digest": ("", "Compute the SHA-256 of each file as it is sent, for receipts and reports."),
    },
    "Resuming": {
        "resume": ("", "Resume an interrupted run of the same command."),
        "cancel_on_interrupt": ("", "On Ctrl-C, also cancel the session on the server."),
        "state_dir": ("DIR", "Directory of the resume journal. [default: the user's]"),
    },
    "Output": {
        "json": ("", "Write JSON to stdout."),
        "progress": ("KIND", "Progress display on stderr: auto, live, plain or none."),
        "quiet": ("", "Show only errors and failed files.", "-q"),
        "verbose": ("", "Show more detail; repeatable.", "-v"),
        "log_file": ("FILE", "Append a JSON log to FILE."),
        "log_level": ("LEVEL", "Minimum level in the log: debug, info, warning or error."),
        "report": (
            "FILE",
            "Write a report; the suffix selects .json, .csv, .xml (JUnit), .md, .html or .sha256; repeatable.",
        ),
        "failed_to": ("FILE", "Write a list of the failed files, for --from-file."),
        "links": ("FILE", "Write the URL and the path of each file that is on the server."),
        "metrics_file": ("FILE", "Write metrics to FILE.prom during the run, for node_exporter (Prometheus)."),
        "on_failure": ("CMD", "Run this command when a run needs attention; its stdin is the report."),
    },
    "Connection": {
        "server": ("URL", "Upload server. Without a scheme: http on loopback, else https.", "-s"),
        "tus_endpoint": ("URL", "Upload to this tus server, instead of --server."),
        "upload_url": ("URL", "Send one file to this upload, which a service has created."),
        "max_wait": ("TIME", "Maximum time to wait for a rate limit (429), as 90 or 10m."),
        "wait_for_server": ("TIME", "Time to wait for an unreachable or full server."),
        "stall": ("TIME", "Warn after this time without progress."),
        "warn_latency": ("MS", "Warn when responses or messages take longer."),
        "warn_error_rate": ("PERCENT", "Warn when more of the last 50 attempts fail."),
        "proxy": ("URL", "Use this HTTP proxy."),
    },
    "Security": {
        "token_file": ("FILE", "Read the token from FILE."),
        "token_command": ("CMD", "Read the token from the output of CMD."),
        "header": ("K:V", "Send this header with every request; repeatable."),
        "ca_bundle": ("FILE", "Trust these certificates (PEM)."),
        "client_cert": ("FILE", "Client certificate with its key (PEM)."),
        "insecure": ("", "Don't verify the server's certificate."),
    },
    "Server extras": {
        "category": ("NAME", "Category of the files: personal or scenic.", "-c"),
        "analyze": ("KIND", "Analyse the uploaded files: content, fusion or music."),
        "analysis_to": ("FILE|DIR", "Save the analysis there. [default: the working directory]"),
    },
}
"""The flags by section of the help: metavar (empty for a switch or a counter), help text and short form."""

IN_CONFIG: dict[str, tuple[str, ...]] = {
    "chunk_rule": ("LEAST-MOST/MULTIPLE", "Chunk sizes that a tus server accepts; the last chunk may be smaller."),
    "retry_status": ("N", "Statuses of a tus server that are retried, as those of a lock."),
    "id_header": ("NAME", "Header of a tus server's answers with the ID of the file."),
    "place": ("KEY", "Metadata under which a tus server stores a file: equal values name the same file."),
}
"""The options of config files and the environment alone: example and description."""

NOT_IMPORTED = (
    "tus_endpoint upload_url name preset metadata name if_exists trust_receipts cancel_on_interrupt analyze analysis_to"
)
"""The options of `upload` that need one process, or another server than imports do."""
REQUESTS = "token_file token_command header ca_bundle client_cert insecure proxy"
"""The options of all commands that send requests."""
OUTPUT = "quiet verbose log_file log_level"
ALL = " ".join(name for section in FLAGS.values() for name in section)
UPLOAD = " ".join(name for name in ALL.split() if name != "on")
IMPORT = " ".join(name for name in ALL.split() if name not in NOT_IMPORTED.split())


def argument(metavar: str, help: str, **more: Any) -> Any:  # noqa: A002 - as in Typer
    """Declare an argument of one command."""
    return typer.Argument(metavar=metavar, help=help, show_default=False, **more)


def option(flag: str, metavar: str, help: str, **more: Any) -> Any:  # noqa: A002 - as in Typer
    """Declare an option of one command; `metavar` is empty for a switch."""
    return typer.Option(flag, metavar=metavar or None, help=help, show_default=False, **more)


def with_options(names: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add the named options to the signature of a command, which gets them as keyword arguments."""

    def add(command: Callable[..., int]) -> Callable[..., int]:
        own = [one for one in inspect.signature(command).parameters.values() if one.kind is not one.VAR_KEYWORD]
        shared = [_parameter(section, name, *FLAGS[section][name]) for section, name in _sections(names.split())]
        command.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        return command

    return add


def _sections(names: list[str]) -> list[tuple[str, str]]:
    return [(section, name) for section, flags in FLAGS.items() for name in flags if name in names]


@cache  # several commands of a module have most options in common
def _parameter(section: str, name: str, metavar: str, help: str, *short: str) -> inspect.Parameter:  # noqa: A002
    """Declare an option of the table; its help ends with the environment variable and the default."""
    option = OPTIONS[name]
    count = name == "verbose"
    kind: Any = int if count else bool if isinstance(option.default, bool) else list[str] if option.many else str
    default = "on" if option.default is True else f"{option.default:g}" if type(option.default) in (int, float) else ""
    default = default or (option.default if isinstance(option.default, str) else "")
    shown = f"; default: {default}" if default and not count else ""
    flag = typer.Option(
        f"{option.flag}/--no-{option.flag[2:]}" if kind is bool else option.flag,
        *short,
        metavar=metavar or None,
        help=f"{help} [env: {option.variable}{shown}]",
        show_default=False,
        count=count,
        autocompletion=_COMPLETE[name] if name in _COMPLETE else among(option.names) if option.names else None,
        rich_help_panel=section,
    )
    annotation = Annotated[kind, flag] if count else Annotated[kind | None, flag]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=0 if count else None, annotation=annotation)


def among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a completer for the `names` that start with the typed text. The shell completes file names itself."""
    known = tuple(names)
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]


def _configured(find: Callable[[Path, Path | None], list[str]]) -> Callable[[str], list[str]]:
    """Return a completer for names of the config files; none if a file is invalid, which the command itself reports."""

    def complete(incomplete: str) -> list[str]:
        try:
            return among(find(working_directory(), user_config_file()))(incomplete)
        except (UploaderError, OSError):
            return []

    return complete


_COMPLETE = {"profile": _configured(profiles), "preset": _configured(presets)}


def hints() -> dict[str, tuple[str, str]]:
    """Return the help text and the metavar of each flag."""
    tables = [*FLAGS.values(), IN_CONFIG]
    return {name: (row[1], row[0]) for table in tables for name, row in table.items()}


def flags(given: Mapping[str, object]) -> dict[str, object]:
    """Return the settings among a command's parameters; the value is None for a flag that was not used."""
    found = {name: value for name, value in given.items() if name in OPTIONS}
    found["verbose"] = found.get("verbose") or None  # typer counts from 0: not used
    return found


def load(
    given: Mapping[str, object], *, need_server: bool = True, stored: Mapping[str, object] | None = None
) -> Settings:
    """Resolve the settings of a command as `resolved`; notes about ignored values go to stderr, unless `--quiet`."""
    settings = resolved(given, need_server=need_server, stored=stored)
    if settings.notes:
        from uploader_cli.run.views import print_notes

        print_notes(settings)
    return settings


def resolved(
    given: Mapping[str, object], *, need_server: bool = True, stored: Mapping[str, object] | None = None
) -> Settings:
    """Resolve the settings of a command from its parameters by name, ignoring those that are no settings.

    `stored` are options of a run, for flags that are not used. Raises `UsageError`.
    """
    existing = {} if "upload_url" in given else {OPTIONS["upload_url"].variable: ""}  # only an upload has one
    return resolve(
        flags(given),
        env={**os.environ, **existing},
        cwd=working_directory(),
        user_config=user_config_file(),
        need_server=need_server,
        use_endpoint="tus_endpoint" in given,
        stored=stored,
    )


def valid_uuid(value: str, what: str) -> str:
    """Return `value` as a canonical UUID, the form of session and file IDs. Raises `UsageError`."""
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise UsageError(
            f"{what}: {value!r} is not an ID", hint="an ID looks like 3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b"
        ) from None
