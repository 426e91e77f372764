"""What people and pipelines read of the checks: the page at any width, the JSON, the JUnit file, the exit code."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from junit_rules import check_junit

from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Check, Checked, CheckReport, Finding, Verdict
from uploader_cli.features.checks.junit import junit
from uploader_cli.features.smoke.runner import CHECKS, chosen
from uploader_cli.features.smoke.smoke_report import SmokePage, exit_of, sentence
from uploader_cli.outputs import ascii_signs
from uploader_cli.render.words import cells

WHEN = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)


def made(
    verdict: Verdict,
    check_id: str = "batch-one",
    *,
    required: bool = True,
    means: str = "",
    blocked_by: str = "",
    **found: Any,
) -> Checked:
    code = {Verdict.PASS: Exit.OK, Verdict.ERROR: Exit.RETRY_MAY_HELP, Verdict.NOT_RUN: Exit.RETRY_MAY_HELP}
    finding = Finding(verdict, **{"exit": code.get(verdict, Exit.FAILED_FOR_GOOD), **found})
    check = Check(check_id, "a batch of one file is stored", lambda _: None, means, required=required)
    return Checked(check, finding, 0.25, blocked_by=blocked_by)


EVERY = (
    made(Verdict.PASS, "health"),
    made(Verdict.WARNING, "rate-limit", message="5 calls are said to remain, of 4"),
    made(
        Verdict.FAIL,
        message='opening a session with a name like <b>"\x00\x1b[31m',
        expected="201",
        got="500 without an error code",
        means="files don't arrive",
    ),
    made(
        Verdict.ERROR,
        "batch-several",
        message="the server failed: 503",
        hint="look into its log",
        means="some files don't arrive",
    ),
    made(Verdict.NOT_OFFERED, "tus-core", message="the session answer names no tus endpoint"),
    made(Verdict.NOT_OFFERED, "tus-creation-defer-length", message="the session answer names no tus endpoint"),
    made(Verdict.SKIPPED, "stored-file", message="batch-one failed", blocked_by="batch-one"),
    made(Verdict.NOT_RUN, "auth", message="the budget of 5 calls is used up"),
    made(Verdict.FAIL, "validate", required=False, expected="200", got="404", means="`validate` is wrong"),
)


def report(
    *results: Checked, strict: bool = False, left: tuple[str, ...] = (), notes: tuple[str, ...] = ()
) -> CheckReport:
    code = Exit.FAILED_FOR_GOOD
    told = sentence(results, code, strict=strict)
    server = "http://127.0.0.1:8005"
    return CheckReport(server, results, Verdict.FAIL, told, code, 9, 1.25, strict, 100, left, notes)


def page(shown: CheckReport, **how: Any) -> list[str]:
    drawn = SmokePage(**how)
    lines = drawn.heading(shown.server)
    for result in shown.results:
        lines += drawn.row(result)
    return [*lines, *drawn.end(shown)]


@pytest.mark.parametrize("width", [36, 40, 79, 80, 200])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, verbose: bool) -> None:
    things = tuple(f"/uploads/personal/uploader-smoke-1234-第三-{number}.mp4: no token" for number in range(7))
    for line in page(report(*EVERY, left=things), width=width, verbose=verbose, leaves="uploader-smoke-1234-*"):
        assert cells(line) <= width
        assert line == line.rstrip()


def test_page_has_a_table_the_failures_and_the_verdict() -> None:
    """A table, each failure with what was expected, what came, and what it means, and the verdict as the last line."""
    lines = page(report(*EVERY, left=("/uploads/a.mp4: no token",)))
    assert lines[:4] == [
        "uploader smoke: http://127.0.0.1:8005",
        "",
        "✓ pass         health                      0.2 s",
        "! warning      rate-limit                  0.2 s  5 calls are said to remain, of",
    ]
    text = "\n".join(lines)
    assert f"– not offered  {'tus-core':<35}the session answer names no\n" in text
    assert "– not offered  tus-creation-defer-length\n" in text, "what was said of the one before is not said again"
    assert "\x1b" not in text
    assert (
        f"✗ fail         {'batch-one':<25}   0.2 s  a batch of one file is stored\n"
        '  in        opening a session with a name like <b>"\\x00\\x1b[31m\n'
        "  expected  201\n"
        "  got       500 without an error code\n"
        "  means     files don't arrive\n"
    ) in text
    assert "0.2 s  a batch of one file is stored\n" + " " * 50 + "(not required)\n  expected  200\n" in text
    assert text.count("500 without an error code") == text.count("opening a session") == 1
    assert "  error     the server failed: 503\n  hint      look into its log\n" in text
    assert "Left on the server (1):\n  /uploads/a.mp4: no token\n" in text
    assert lines[-4:] == [
        "",
        "  9 of 100 calls used, 1.2 s",
        "✗ 2 of 6 checks failed: batch-one, batch-several; 1 not run (2 not offered, 1",
        "  skipped, 1 with a warning, not required and failed: validate)",
    ]


def test_narrow_page_has_the_text_below_the_check() -> None:
    """The word of the verdict is there, too, unless the check passed."""
    assert page(report(*EVERY[:3]), width=40)[2:10] == [
        "✓ health                      0.2 s",
        "! rate-limit                  0.2 s",
        "  warning: 5 calls are said to remain,",
        "  of 4",
        "✗ batch-one                   0.2 s",
        "  fail: a batch of one file is stored",
        "  in        opening a session with a",
        '            name like <b>"\\x00\\x1b[31m',
    ]


def test_colours_are_never_the_only_sign() -> None:
    plain = page(report(*EVERY))
    coloured = page(report(*EVERY), color=True)
    assert coloured != plain
    for code in ("\x1b[32m", "\x1b[1;33m", "\x1b[1;31m", "\x1b[2m", "\x1b[0m"):
        coloured = [line.replace(code, "") for line in coloured]
    assert coloured == plain
    assert "x fail         batch-one" in ascii_signs("\n".join(plain))


def test_few_of_many_things_left_are_named() -> None:
    shown = report(*EVERY, left=tuple(f"thing {number}" for number in range(9)))
    assert "  and 4 more (-v lists them)" in SmokePage().end(shown)
    assert "  thing 8" in SmokePage(verbose=True).end(shown)


@pytest.mark.parametrize(
    ("results", "exit_code", "words"),
    [
        (EVERY[:1], Exit.OK, "1 check passed"),
        (EVERY[:2], Exit.OK, "2 checks passed (1 with a warning)"),
        ((EVERY[0], EVERY[8]), Exit.OK, "1 check passed (not required and failed: validate)"),
        ((EVERY[0], EVERY[7]), Exit.RETRY_MAY_HELP, "1 of 2 checks not run: the budget of 5 calls is used up"),
        ((EVERY[3],), Exit.NO_SERVER, "No upload server answers: 1 of 1 check failed: batch-several"),
        ((EVERY[3],), Exit.NOT_AUTHORISED, "The server denies access: 1 of 1 check failed: batch-several"),
        ((EVERY[0], EVERY[7]), Exit.SIGINT, "Interrupted: 1 of 2 checks not run"),
    ],
)
def test_verdict_is_one_line(results: tuple[Checked, ...], exit_code: Exit, words: str) -> None:
    assert sentence(results, exit_code, strict=False) == words


@pytest.mark.parametrize(
    ("result", "normal", "strict"),
    [
        (made(Verdict.PASS), 0, 0),
        (made(Verdict.NOT_OFFERED), 0, 0),
        (made(Verdict.SKIPPED), 0, 0),
        (made(Verdict.WARNING), 0, 4),
        (made(Verdict.WARNING, exit=Exit.OK), 0, 4),
        (made(Verdict.FAIL), 4, 4),
        (made(Verdict.FAIL, exit=Exit.INTEGRITY), 7, 7),
        (made(Verdict.FAIL, required=False), 0, 4),
        (made(Verdict.ERROR), 3, 3),
        (made(Verdict.ERROR, required=False), 0, 3),
        (made(Verdict.NOT_RUN), 3, 3),
    ],
)
def test_verdicts_and_their_exit_codes(subtests: pytest.Subtests, result: Checked, normal: int, strict: int) -> None:
    for is_strict, code in ((False, normal), (True, strict)):
        with subtests.test(is_strict=is_strict, code=code):
            assert exit_of([result], strict=is_strict, speaks=True, refused=False) == code


def test_exit_code_of_no_upload_server_and_refused_token() -> None:
    broken = [made(Verdict.ERROR), made(Verdict.FAIL)]
    assert exit_of(broken, strict=False, speaks=True, refused=False) == Exit.FAILED_FOR_GOOD
    assert exit_of(broken, strict=False, speaks=False, refused=False) == Exit.NO_SERVER
    assert exit_of(broken, strict=False, speaks=False, refused=True) == Exit.NOT_AUTHORISED


def test_the_junit_file_keeps_the_rules_of_its_schema() -> None:
    """Whatever the verdicts are, and whatever characters a server's answer had."""
    document = "".join(junit(report(*EVERY, left=("a\x07.mp4",), notes=("It is new.",)), "smoke", WHEN, {"calls": 1}))
    suite = check_junit(document)[0]
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    failure = cases["batch-one"].find("failure")
    assert failure is not None
    assert failure.text is not None
    assert "expected: 201\ngot: 500 without an error code\nmeans: files don't arrive" in failure.text
    assert failure.get("message") == 'opening a session with a name like <b>"\\x00\\x1b[31m'
    assert [child.tag for child in cases["batch-several"]] == ["error"]
    assert "hint: look into its log\n" in "".join(cases["batch-several"].itertext())
    assert [child.tag for child in cases["auth"]] == ["error"]
    assert [child.tag for child in cases["validate"]] == ["skipped"]
    assert [child.tag for child in cases["rate-limit"]] == []
    assert cases["tus-core"].find("skipped").get("message") == "not offered: " + EVERY[4].finding.message  # type: ignore[union-attr]
    assert suite.find("properties/property[@name='exit_code']").get("value") == "4"  # type: ignore[union-attr]
    assert suite.findtext("system-out") == (
        "rate-limit: 5 calls are said to remain, of 4\nIt is new.\nleft on the server: a\\x07.mp4"
    )


def test_strict_failures_are_failures_in_the_junit_file_too() -> None:
    suite = check_junit("".join(junit(report(*EVERY, strict=True), "smoke", WHEN, {})))[0]
    tags = {case.get("name"): [child.tag for child in case] for case in suite.findall("testcase")}
    assert tags["validate"] == tags["rate-limit"] == ["failure"]


def test_checks_are_chosen_by_id_and_by_glob() -> None:
    assert chosen() == CHECKS
    assert [one.id for one in chosen(["batch-*"], ["*-cut"])] == ["batch-one", "batch-several"]
    assert [one.id for one in chosen(["auth", "health"])] == ["health", "auth"], "in the order of the table"
    with pytest.raises(UsageError, match="--only: no check matches 'helth'"):
        chosen(["helth"])
    with pytest.raises(UsageError, match="--skip: no check matches 'x\\*'"):
        chosen([], ["x*"])
    with pytest.raises(UsageError, match="excludes all checks"):
        chosen(["auth"], ["auth"])


def test_checks_have_unique_ids_and_descriptions() -> None:
    assert len({one.id for one in CHECKS}) == len(CHECKS)
    assert all(one.description and one.means for one in CHECKS)
