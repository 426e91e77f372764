"""The HTML page of a report, and `report show`: the numbers of the run, whatever the names of its files."""

from __future__ import annotations

import html.parser
import json
import re
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from feature_samples import of
from serving import running_server

from uploader_cli.__main__ import main
from uploader_cli.core.rate import TIMELINE_STEPS, Timeline
from uploader_cli.features.reports.html import as_html
from uploader_cli.outputs import ascii_signs
from uploader_cli.render.words import cells
from uploader_cli.report.recorder import Spool
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY_PART = Path(__file__).with_name("every_part")
HOSTILE = 'a<script>alert("1")</script>&amp;\x1b[31m\u202e.mp4'
EMPTY = {"meta", "!doctype"}


class Page(html.parser.HTMLParser):
    """Collects the text, checks that tags match, and that nothing runs or is loaded."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.open = "", list[str]()
        self.feed(page)
        assert self.open == []
        assert "url(" not in page
        assert "@import" not in page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe", "a", "base", "form")
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href", "action")]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("path", "rect")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Upload two files, of which one is retried, and one that fails; return the directory with the reports."""
    top = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        patch.setenv("XDG_STATE_HOME", str(top / "state"))
        patch.setattr("uploader_cli.features.reports.figures.NOTABLE", 0.0)
        for name, size in {HOSTILE.replace("/", "|"): 700_000, "bad.mp4": 10, "b.mp4": 30}.items():
            (top / "files").mkdir(exist_ok=True)
            (top / "files" / name).write_bytes(b"x" * size)
        with running_server(flavour="reference", processing_seconds=0.01, fail_files=("bad*",)) as server:
            server.faults.next_answers("POST", "/api/upload/batch", [Answer(503, {"Retry-After": "0"})])
            line = ["upload", "files", "-s", server.url, "-q", "--report", "run.json", "--report", "run.html"]
            assert main([*line, "--failed-to", "again.txt"]) == 4
        yield top


@pytest.fixture
def report(place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(place)
    monkeypatch.setattr("uploader_cli.features.reports.figures.NOTABLE", 0.0)
    found: dict[str, Any] = json.loads((place / "run.json").read_text())
    return found


def test_html_page_has_the_figures_of_the_run_and_runs_nothing(place: Path, report: dict[str, Any]) -> None:
    text = (place / "run.html").read_text()
    words = Page(text).words
    assert "default-src 'none'" in text
    assert "2 of 3 files uploaded, 1 failed" in words
    assert 'files/a<script>alert("1")<|script>&amp;\\x1b[31m\\u202e.mp4' in words
    for title in ("Throughput", "Files per second", "Failures by cause", "Slowest files"):
        assert title in words
    assert "server_failed" in words
    assert report["run"] in words
    assert "Shaded" not in "".join(as_html({**report, "incidents": {"kept": [], "total": 0}}, Spool()))


def test_report_has_the_speed_over_time_and_the_response_times(report: dict[str, Any]) -> None:
    timeline, histogram = report["timeline"], report["latency_histogram"]
    assert sum(timeline["files"]) == report["counts"]["completed"] == 2
    assert sum(timeline["bytes"]) >= report["bytes"]
    assert len(timeline["bytes"]) == len(timeline["files"]) <= TIMELINE_STEPS
    assert timeline["step"] * (len(timeline["files"]) - 1) <= report["seconds"]
    assert len(histogram["counts"]) == len(histogram["bounds_ms"]) + 1
    assert 0 < sum(histogram["counts"]) <= report["metrics"]["calls"]


@pytest.mark.parametrize("width", [40, 80])
def test_report_show_fits_the_terminal(
    report: dict[str, Any], width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipe it is plain text of the same width, with the same figures as the page."""
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["report", "show", "run.json"]) == 0
    out = capsys.readouterr().out
    assert max(cells(line) for line in out.splitlines()) <= width
    assert "\x1b" not in out
    assert out.startswith("✗ 2 of 3 files uploaded, 1 failed\n")
    assert re.search(r"^server_failed  1  ━", out, re.MULTILINE)
    assert re.search(r"^✓ files/a.*mp4 +(683.6 KiB +)?[\d.]+ m?s", out, re.MULTILINE)
    for title in ("Throughput", "Files per second", "Slowest files"):
        assert f"\n\n{title}" in out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["report", "show", "run.json"]) == 0
    assert re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out) == out


def test_report_of_others_sends_no_control_characters_to_the_terminal(
    place: Path, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {"kind": "\x1b]0;k", "ts": "", "seconds": 1.0, "ending": "\x1b]0;e", "times": 1, "text": "\x1b]0;t"}
    report |= {"bottleneck": "\x1b]0;b", "incidents": {"total": 1, "kept": [odd]}}
    (place / "others.json").write_text(json.dumps(report))
    assert main(["report", "show", "others.json"]) == 0
    out = capsys.readouterr().out
    assert [word in out for word in ("]0;k", "]0;e", "]0;t", "]0;b")] == [True] * 4
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "kind", ["txt", "narrow.txt", "xml", of("then", "csv"), of("shards", "html"), of("shards", "md")]
)
def test_report_with_everything_is_written_as_before(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """These formats are public. After a wanted change, write the files in `every_part` anew and look at them."""
    monkeypatch.setenv("COLUMNS", "80" if kind == "txt" else "50")
    written = tmp_path / f"report.{kind}"
    outputs = [] if kind.endswith("txt") else ["-q", "-o", str(written)]
    assert main(["report", "show", str(EVERY_PART / "report.json"), *outputs]) == 0
    text = written.read_text() if outputs else capsys.readouterr().out
    body = text[text.index("<header>") :] if kind == "html" else text
    assert body == (EVERY_PART / f"report.{kind}").read_text()


def test_plot_of_a_terminal_is_as_high_as_its_values(
    place: Path, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """In eighths of a row: 20 files a second, which is the highest mark, then 10. The bars of files end at 16 cells."""
    report["timeline"] = {"step": 0.5, "bytes": [1 << 20] * 100, "files": [10] * 50 + [5] * 50}
    for file, seconds in zip(report["files"], (4.0, 1.0, 2.0), strict=True):
        file["seconds"] = seconds
    (place / "even.json").write_text(json.dumps(report))
    assert main(["report", "show", "even.json"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^Files per second +15 on average, at most 20$", out, re.MULTILINE)
    assert len(re.findall(r"^ +0:00 .* 0:50$", out, re.MULTILINE)) == 2
    assert [len(bar) for bar in re.findall("━+", out.partition("Slowest files")[2])[:3]] == [16, 8, 4]
    plot = out.partition("\nFiles per second")[2].partition("└")[0]
    assert ascii_signs(out).isascii()
    rows = [re.split("[│┤]", line)[1] for line in plot.splitlines()[1:-1]]
    heights = [sum(" ▁▂▃▄▅▆▇█".index(cell) for cell in column) for column in zip_longest(*rows, fillvalue=" ")]
    assert set(heights[5:25]) == {8 * len(rows)}
    assert set(heights[-25:-5]) == {4 * len(rows)}


def test_report_show_writes_the_page_of_an_earlier_run(place: Path, report: dict[str, Any]) -> None:
    outputs = ["-o", "later.html", "-o", "later.json", "--failed-to", "later.txt"]
    assert main(["report", "show", "run.json", "-q", *outputs]) == 0
    for name, later in {"run.html": "later.html", "run.json": "later.json", "again.txt": "later.txt"}.items():
        assert (place / later).read_text() == (place / name).read_text()


@pytest.mark.feature("shards")
def test_merged_report_and_one_of_an_older_version_are_drawn_without_plots(
    place: Path, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("timeline", "latency_histogram"):
        del report[name]
    (place / "old.json").write_text(json.dumps(report))
    assert main(["report", "merge", "run.json", "-q", "-o", "all.html", "-o", "all.json"]) == 4
    assert "server_failed" in Page((place / "all.html").read_text()).words
    for name in ("old.json", "all.json"):
        capsys.readouterr()
        assert main(["report", "show", name]) == 0
        out = capsys.readouterr().out
        assert "Slowest files" in out
        assert "Throughput" not in out


def test_tables_that_say_nothing_are_left_out(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The slowest of files that all were quick, and the histogram of few response times or of one bar."""
    for slow, shown in ((1.0, True), (1.1, False)):
        monkeypatch.setattr("uploader_cli.features.reports.figures.NOTABLE", slow)
        with closing(Spool()) as spool:
            for number in range(2):
                spool.put({"path": f"{number}.mp4", "outcome": "completed", "size": 1, "seconds": 1.0, "file": number})
            assert ("Slowest files" in "".join(as_html(report, spool))) is shown
    for counts, shown in (([10, 10, 0], True), ([10, 9, 0], False), ([0, 50, 0], False)):
        report["latency_histogram"] = {"bounds_ms": [5, 10], "counts": counts}
        assert ("Response times" in "".join(as_html(report, Spool()))) is shown


def test_run_that_sent_nothing_has_no_plots(
    place: Path, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["upload", "files", "-s", "127.0.0.1:1", "-q", "--wait-for-server", "0", "--no-resume"]
    assert main([*line, "--report", "nothing.json", "--report", "nothing.html"]) == 6
    capsys.readouterr()
    assert main(["report", "show", "nothing.json"]) == 0
    for text in (capsys.readouterr().out, Page((place / "nothing.html").read_text()).words):
        assert "0 of 3 files uploaded, 3 not sent" in text
        assert "no connection to http://127.0.0.1:1" in text
        assert "Throughput" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "run.json", "run.json"], "takes one report"),
        (["show", "run.json", "--json"], "writes no JSON"),
        (["draw", "run.json"], "unknown action 'draw'"),
        (["show", "run.html"], "run.html"),
        (["show", "odd.json"], "odd.json is damaged"),
        (["show", "odd.json", "-q", "-o", "odd.html"], "odd.json is damaged"),
        (["show", "half.json"], "half.json is not a JSON report, or damaged"),
        of("shards", ["merge", "half.json", "--json"], "half.json is not a JSON report, or damaged"),
        (["show", "run.json", "-o", "gone/run.html"], "no such directory"),
    ],
)
def test_report_show_refuses_what_it_cannot_draw(
    place: Path, report: dict[str, Any], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "odd.json").write_text(json.dumps({**report, "timeline": {"step": "x", "bytes": ["1"], "files": [2]}}))
    (place / "half.json").write_text((place / "run.json").read_text().replace('"path": "', '"path": "\\ud800', 1))
    assert main(["report", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_timeline_of_a_long_run_is_bounded() -> None:
    timeline = Timeline()
    for second in range(20_000):
        timeline.update(second, second * 1000, second)
    assert len(timeline.bytes) == len(timeline.files) == 196
    assert (sum(timeline.bytes), sum(timeline.files), timeline.step) == (19_999_000, 19_999, 0.1 * 1024)
    assert {count // 100 for count in timeline.files[:-1]} == {1}
    edge = Timeline()
    edge.update(edge.step * TIMELINE_STEPS, 1, 1)
    assert (len(edge.bytes), edge.step) == (TIMELINE_STEPS // 2 + 1, 0.2)


@pytest.mark.thorough
def test_page_of_many_files_is_not_larger(report: dict[str, Any]) -> None:
    """Nor with many failures, warnings and incidents, or a long run."""
    report["warnings"], report["incidents"]["kept"] = report["warnings"] * 1000, report["incidents"]["kept"] * 100
    report["timeline"] = {"step": 100.0, "bytes": [1 << 40] * TIMELINE_STEPS, "files": [1000] * TIMELINE_STEPS}
    few, many = (len(page_of(report, failed)) for failed in (1000, 5000))
    assert few < 250_000
    assert page_of(report, 1).count('class="hit"') == 2 * 100  # points
    assert many == pytest.approx(few, rel=0.01)


def page_of(head: dict[str, Any], failed: int) -> str:
    spool = Spool()
    for number in range(failed):
        row = {"file": number, "path": "p" * 500, "outcome": "failed", "size": 1, "seconds": 1.0, "attempts": 1}
        spool.put({**row, "code": f"code{number % 20}", "message": "x" * 500, "retryable": True})
    return "".join(as_html(head, spool))
