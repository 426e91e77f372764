"""Entry point (`uploader`, `python -m uploader_cli`): runs a command and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys

from uploader_cli import __version__

TYPE_CHECKING = False  # importing typing takes longer than everything else before `signals.install`
if TYPE_CHECKING:
    from collections.abc import Sequence


def run() -> int:
    from uploader_cli import signals  # first: the other imports take a while

    signals.install()
    from uploader_cli import outputs

    out = outputs.guard()
    code = main()
    signals.end_with(code)
    if out.problem:
        _say(f"warning: stdout could not be written ({out.problem}); the output is incomplete")
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; `argv` excludes the program's name (default: `sys.argv`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["--version"] and set(words[1:]) <= {"-v", "--verbose"}:  # without the slow import of Typer
            code = _print_version(verbose=len(words) > 1)
        else:
            import atexit
            import gc

            gc.set_threshold(50_000, 20, 50)  # the default looks at live events so often: 12 % of a run's CPU time
            atexit.register(gc.freeze)  # skips garbage collection at exit: saves 0.05 s
            from uploader_cli.cli.app import run_command

            gc.freeze()  # else the imports of a command reach the threshold: 10 ms for a search that finds nothing
            code = run_command(argv)
        sys.stdout.flush()  # a closed pipe is handled here, not at the interpreter's exit
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The interpreter flushes stdout again at exit, which would report the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - a bug, unless it is one of ours
        return _explained(error)


def _print_version(*, verbose: bool) -> int:
    sys.stdout.write(f"uploader {__version__}\n")
    if verbose:
        from uploader_cli.build import build

        sys.stdout.write(build())
    return 0


def _explained(raised: Exception) -> int:
    """Print the message about an error, or where its bug report is; return the exit code."""
    from uploader_cli import signals
    from uploader_cli.errors import UploaderError, UsageError, exhausted
    from uploader_cli.exit_status import Exit, of_error
    from uploader_cli.settings.places import DELETED_DIRECTORY, working_directory

    error = exhausted(raised) or raised
    if isinstance(error, UploaderError):
        from uploader_cli.core.masking import mask

        _say(f"error: {mask(str(error))}")  # it may quote a server or a library
        for line in error.details if isinstance(error, UsageError) else ():
            _say(f"  {mask(line)}")
        if error.hint:
            _say(f"hint: {mask(error.hint)}")
        return of_error(error)
    asked = signals.pending()
    if asked is not None:  # a signal during an import may raise another error
        return asked
    if isinstance(error.__cause__ or error, FileNotFoundError) and working_directory() is DELETED_DIRECTORY:
        _say("error: the working directory was deleted")
        _say("hint: change to an existing directory")
        return Exit.USAGE
    _say(f"error: internal error ({type(error).__name__}): this is a bug in uploader")
    _say(f"hint: {_report(error)}")
    return Exit.BUG


def _say(text: str) -> None:
    """Print a message, on a terminal folded at spaces."""
    from uploader_cli.render import columns
    from uploader_cli.render.words import safe, wrap  # a file name may contain control characters

    width, text = columns(0), safe(text)
    lines = wrap(text, width, rest="  ") if width else [text]
    print(*lines, sep="\n", file=sys.stderr)  # noqa: T201 - messages for the user


def _report(error: Exception) -> str:
    """Write a bug report to a new private file and return a sentence that names it."""
    import platform
    import tempfile
    import traceback

    from uploader_cli.core.masking import mask

    lines = [
        f"uploader {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"options: {' '.join(_flags(sys.argv[1:]))}",
        "",
        *traceback.format_exception(error),
    ]
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="uploader-report-", suffix=".txt", encoding="utf-8", errors="backslashreplace", delete=False
        ) as file:
            file.write(mask("\n".join(lines)))
    except OSError as problem:
        return f"no bug report could be written: {problem.strerror}"
    return f"a bug report was written to {file.name}"


def _flags(argv: Sequence[str]) -> list[str]:
    """Return the command and its flags, without values and paths, which may be private."""
    flags = (word.partition("=")[0] if word.startswith("--") else word[:2] for word in argv[1:] if word.startswith("-"))
    return [argv[0], *flags] if argv else []


if __name__ == "__main__":
    sys.exit(run())
