"""The way in (`uploader`, `python -m uploader_cli`), and the one place where errors become words and exit codes."""

from __future__ import annotations

import os
import sys

from uploader_cli import __version__

TYPE_CHECKING = False  # without typing, whose import takes longer than all else before `signals.install`
if TYPE_CHECKING:
    from collections.abc import Sequence


def run() -> int:
    """Run the command of this process; returns the exit code."""
    from uploader_cli import signals  # before anything else is imported, which takes a while

    signals.install()
    from uploader_cli import outputs

    out = outputs.guard()
    code = main()
    signals.settle(code)
    if out.problem:
        _say(f"warning: stdout could not be written ({out.problem}): what followed is missing there")
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` without the program's name (default: the process's own). Gives the exit code."""
    from uploader_cli import signals
    from uploader_cli.errors import UploaderError, UsageError
    from uploader_cli.exit_status import Exit, of_error

    try:
        code = _run(argv)
        sys.stdout.flush()  # here, where a reader that went away is no noise, not at the interpreter's end
        return code
    except KeyboardInterrupt:
        return Exit.SIGINT
    except BrokenPipeError:
        return _reader_is_gone()
    except UploaderError as error:
        from uploader_cli.settings import mask

        _say(f"error: {mask(str(error))}")  # it may quote an answer, or a library's words
        for line in error.details if isinstance(error, UsageError) else ():
            _say(f"  {mask(line)}")
        if error.hint:
            _say(f"hint: {mask(error.hint)}")
        return of_error(error)
    except Exception as error:  # noqa: BLE001 - a bug: no traceback on the screen, but a report that can be sent
        asked = signals.pending()
        if asked is not None:  # a signal during an import may come out as another error
            return asked
        _say(f"error: internal error ({type(error).__name__}): this is a bug in uploader")
        _say(f"hint: a report that you can send is in {_report(error)}")
        return Exit.BUG


def _run(argv: Sequence[str] | None) -> int:
    import atexit
    import gc

    gc.set_threshold(50_000, 20, 50)  # the default examines live events so often that it takes 12 % of a run's CPU time
    atexit.register(gc.freeze)  # else the interpreter's end looks for garbage several times, which takes 0.05 s
    words = sys.argv[1:] if argv is None else argv
    if list(words) == ["--version"]:  # without Typer, whose import takes four times as long as all of this
        sys.stdout.write(f"uploader {__version__}\n")
        return 0
    from uploader_cli.cli.app import app

    try:
        app(args=argv, prog_name="uploader")  # ends in SystemExit; it words its own usage errors (2) and Ctrl-C (130)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _say(text: str) -> None:
    from uploader_cli.render.words import safe  # a file's name in a message is data, not a terminal's command

    print(safe(text), file=sys.stderr)  # noqa: T201 - what a person is told


def _reader_is_gone() -> int:
    # The interpreter flushes stdout once more at its end, and would complain of the same pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _report(error: Exception) -> str:
    """Write what a bug's finder needs to a new file that only the user can read; its path."""
    import platform
    import tempfile
    import traceback

    from uploader_cli.settings import mask

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
        return f"no file ({problem.strerror})"
    return file.name


def _flags(argv: Sequence[str]) -> list[str]:
    """The command and the names of its flags: values may be secret, and paths are nobody's business."""
    flags = (word.partition("=")[0] if word.startswith("--") else word[:2] for word in argv[1:] if word.startswith("-"))
    return [argv[0], *flags] if argv else []


if __name__ == "__main__":
    sys.exit(run())
