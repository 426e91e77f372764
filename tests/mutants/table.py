"""The mutants: each replaces one text of one file, and names the tests that should fail."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One change: `text`, which is in `file` exactly once, becomes `instead`."""

    breaks: str
    file: str
    text: str
    instead: str
    tests: str
    """Files below `tests/`, separated by spaces."""


CORE, REPORT, RUN = "src/uploader_cli/core/", "src/uploader_cli/report/", "src/uploader_cli/run/"
CHECKS, TRANSFER = "src/uploader_cli/checks/", "src/uploader_cli/transfer/"
REALTIME, SELECTION = "src/uploader_cli/realtime/", "src/uploader_cli/selection/"
SERVER = "server_stub/uploader_server/"

FORMATS = "unit/report functional/report"
WATCH = "unit/run/test_run_watched_session.py functional/watch/test_watch_sessions.py"
TUS = "functional/tus_server/test_tus_server_"
ORDERS = "unit/core/test_core_replay.py unit/core/test_core_invariants.py"

MUTANTS = (
    # Rows and heads of reports
    Mutant(
        "a skip that was not tried is a skip",
        CORE + "reducer/files.py",
        "phase = Phase.CANCELLED if event.reason is",
        "phase = Phase.SKIPPED if event.reason is",
        FORMATS,
    ),
    Mutant(
        "a failed row has one attempt",
        CORE + "reducer/files.py",
        'details.setdefault("attempts", known.attempt)',
        'details.setdefault("attempts", 1)',
        FORMATS,
    ),
    Mutant(
        "a failed row has no confirmed bytes",
        CORE + "reducer/files.py",
        'details.setdefault("bytes", known.confirmed)',
        'details.setdefault("bytes", 0)',
        FORMATS,
    ),
    Mutant(
        "an unknown size is left out",
        REPORT + "document.py",
        'if value is not None or name == "size":',
        "if value is not None:",
        FORMATS,
    ),
    Mutant("times have no zone", CORE + "names.py", '.replace("+00:00", "Z")', '.replace("+00:00", "")', FORMATS),
    Mutant(
        "a selection is always complete",
        REPORT + "document.py",
        '"selection_complete": not state.walking,',
        '"selection_complete": True,',
        FORMATS,
    ),
    Mutant(
        "the seconds of a row begin with its last attempt",
        CORE + "reducer/files.py",
        "now if before is None else before.started,",
        "now,",
        FORMATS,
    ),
    Mutant(
        "a row does not name its session",
        CORE + "reducer/files.py",
        'details["session"] = known.session or None',
        'details["session"] = None',
        FORMATS,
    ),
    # Formats
    Mutant("a cell may begin with @", REPORT + "formats.py", '"-", "@",', '"-",', FORMATS),
    Mutant(
        "rows of JSON have no comma", REPORT + "formats.py", 'separator = ",\\n    "', 'separator = "\\n    "', FORMATS
    ),
    Mutant("CSV ends lines with LF", REPORT + "formats.py", 'lineterminator="\\r\\n"', 'lineterminator="\\n"', FORMATS),
    Mutant("CSV says True", REPORT + "formats.py", "str(value).lower()", "str(value)", FORMATS),
    Mutant(
        "JUnit counts failures as errors",
        REPORT + "junit.py",
        '"failures", "errors"',
        '"errors", "failures"',
        FORMATS,
    ),
    Mutant("JUnit passes cancelled files", REPORT + "junit.py", 'case "cancelled":', 'case "":', FORMATS),
    Mutant("Markdown names every failure", REPORT + "markdown.py", "MOST = 50", "MOST = 5000", FORMATS),
    Mutant("Markdown lets a name end its cell", REPORT + "markdown.py", "<>|#", "<>#", FORMATS),
    # The page of a report, and metrics
    Mutant(
        "the page does not escape names",
        REPORT + "html.py",
        "return escape(clip(safe(str(value)), LONGEST))",
        "return clip(safe(str(value)), LONGEST)",
        "cli/test_report_pictures.py",
    ),
    Mutant(
        "a long timeline loses bytes",
        CORE + "rate.py",
        "[sum(counts[at : at + 2])",
        "[counts[at]",
        "cli/test_report_pictures.py",
    ),
    Mutant(
        "a failed run is a success in the metrics",
        REPORT + "prometheus.py",
        "ended if code == Exit.OK else",
        "ended if code is not None else",
        "cli/test_metrics_file.py",
    ),
    Mutant(
        "buckets of the metrics are not cumulative",
        REPORT + "prometheus.py",
        "accumulate(sketch.histogram(LATENCIES))",
        "iter(sketch.histogram(LATENCIES))",
        "cli/test_metrics_file.py",
    ),
    # Joined reports, the list of files to retry, --on-failure
    Mutant(
        "the earlier run decides",
        REPORT + "merge.py",
        "return ends[0] >= ends[1]",
        "return ends[0] < ends[1]",
        FORMATS,
    ),
    Mutant("the last shard is not missed", REPORT + "merge.py", "range(1, count + 1)", "range(1, count)", FORMATS),
    Mutant(
        "a missing report is no failure",
        REPORT + "merge.py",
        "code = worst((code, Exit.RETRY_MAY_HELP))",
        "code = worst((code, Exit.OK))",
        FORMATS,
    ),
    Mutant(
        "a file of one shard is in several",
        REPORT + "merge.py",
        "all(shards) and shards[0] != shards[1]",
        "all(shards)",
        FORMATS,
    ),
    Mutant(
        "a file left by --fail-fast is success",
        REPORT + "merge.py",
        ' or row.get("reason") == "fail_fast"\n    return Exit.RETRY',
        "\n    return Exit.RETRY",
        FORMATS,
    ),
    Mutant(
        "cancelled files are not in the list to retry",
        REPORT + "formats.py",
        'in ("failed", "cancelled")',
        'in ("failed",)',
        FORMATS,
    ),
    Mutant("bad lines are in the list to retry", REPORT + "formats.py", '!= "bad_line"', '!= "no_line"', FORMATS),
    Mutant(
        "line breaks split a name in the list to retry",
        REPORT + "formats.py",
        '"\\0" if needs_nul(path, spool) else',
        '"\\n" if needs_nul(path, spool) else',
        FORMATS,
    ),
    Mutant("a report of any version is read", REPORT + "read.py", 'head.get("v") != VERSION', "False", FORMATS),
    Mutant(
        "--on-failure runs after success",
        RUN + "on_failure.py",
        "if not needs_person(state.outcome):",
        "if False:",
        "unit/run/test_run_on_failure.py",
    ),
    Mutant(
        "--on-failure does not count what is left out",
        RUN + "on_failure.py",
        "= state.failed - len(self._failed)",
        "= 0",
        "unit/run/test_run_on_failure.py",
    ),
    Mutant(
        "an interrupt does not end --on-failure",
        RUN + "on_failure.py",
        "if self._interrupted() > before:",
        "if False:",
        "unit/run/test_run_on_failure.py",
    ),
    Mutant(
        "--on-failure has no time limit",
        RUN + "on_failure.py",
        "if time.monotonic() > until:",
        "if False:",
        "unit/run/test_run_on_failure.py",
    ),
    # The run and watching
    Mutant(
        "a report that can not be written is success",
        RUN + "loop.py",
        "exit_code=outcome.exit_code or int(Exit.USAGE)",
        "exit_code=outcome.exit_code",
        "unit/run",
    ),
    Mutant(
        "a failure shows secrets", RUN + "loop.py", 'ev.FileFailed: ("message",),', "ev.FileFailed: (),", "unit/run"
    ),
    Mutant("a warning shows secrets", RUN + "loop.py", 'ev.RunWarning: ("text",),', "ev.RunWarning: (),", "unit/run"),
    Mutant("files of a failed session stay open", RUN + "watch.py", 'if status != "completed":', "if False:", WATCH),
    Mutant("one answer makes a session unknown", RUN + "watch.py", "LOST = 2", "LOST = 1", WATCH),
    Mutant(
        "failed files of a watched session are success",
        RUN + "watch.py",
        "and not session.failed else",
        "else",
        WATCH,
    ),
    Mutant(
        "a token that is refused is waited for",
        RUN + "watch.py",
        "isinstance(failure, errors.Unauthorized)",
        "False",
        WATCH,
    ),
    Mutant("--wait 0 does not ask", RUN + "watch.py", " or (not asked and waited <= FIRST)", "", WATCH),
    # State
    Mutant(
        "a late message lowers the bytes sent",
        CORE + "reducer/files.py",
        "or event.sent <= file.sent:",
        "or event.sent < 0:",
        f"{ORDERS} unit/core/test_core_reducer.py",
    ),
    Mutant(
        "more is confirmed than sent",
        CORE + "reducer/files.py",
        "file.sent = max(file.sent, event.confirmed)",
        "pass",
        f"{ORDERS} unit/core/test_core_reducer.py",
    ),
    Mutant(
        "retries are not counted",
        CORE + "reducer/files.py",
        "state.retries += 1",
        "pass",
        "unit/core/test_core_reducer.py unit/core/test_core_metrics.py",
    ),
    Mutant(
        "a cancelled file that waited keeps its attempt",
        CORE + "reducer/files.py",
        "file.attempt += 1",
        "pass",
        f"{ORDERS} unit/core/test_core_reducer.py",
    ),
    Mutant(
        "a stale message changes a session",
        CORE + "reducer/sessions.py",
        "if stamp < session.server_time:",
        "if False:",
        f"{ORDERS} unit/core/test_core_reducer.py",
    ),
    Mutant(
        "the percentage of a session falls",
        CORE + "reducer/sessions.py",
        "max(0.0 if exact else session.percent, clamped(event.percent))",
        "clamped(event.percent)",
        f"{ORDERS} unit/core/test_core_reducer.py",
    ),
    Mutant(
        "an ended session has another end",
        CORE + "reducer/sessions.py",
        "if event.status and session.status not in SERVER_TERMINAL:",
        "if event.status:",
        f"{ORDERS} unit/core/test_core_reducer.py",
    ),
    Mutant(
        "Ctrl-C calls somebody",
        CORE + "incidents.py",
        "= (0, 130, 143)",
        "= (0,)",
        "unit/core/test_core_recovery.py unit/run",
    ),
    Mutant(
        "an offset is news of a retried file",
        CORE + "reducer/files.py",
        "or event.confirmed <= file.confirmed:",
        "or event.confirmed < 0:",
        "unit/core/test_core_recovery.py",
    ),
    Mutant("an alarm comes and goes", CORE + "alarms.py", "CALM = 0.8", "CALM = 1.0", "unit/core/test_core_alarms.py"),
    Mutant(
        "a request takes twice its bytes",
        CORE + "plan.py",
        "if total > budget:",
        "if total > 2 * budget:",
        "unit/core/test_core_plan.py",
    ),
    Mutant(
        "a large file has no request",
        CORE + "plan.py",
        "return max(1, count)",
        "return count",
        "unit/core/test_core_plan.py",
    ),
    Mutant(
        "equal names share a session",
        CORE + "plan.py",
        "if name not in item.names",
        "if item.names",
        "unit/core/test_core_plan.py",
    ),
    Mutant(
        "a refusal takes one job away",
        CORE + "jobs.py",
        "max(1, self.jobs // 2)",
        "max(1, self.jobs - 1)",
        "unit/core/test_core_jobs.py",
    ),
    Mutant(
        "what stands still is over at once",
        CORE + "state.py",
        "if rate > 0 else None",
        "if rate > 0 else 0.0",
        "unit/core/test_core_rate.py",
    ),
    Mutant(
        "packs go to another host",
        CORE + "tus.py",
        "if endpoint and trusts(server, url) else",
        "if endpoint else",
        "unit/transfer functional/transfer/test_packs.py functional/transfer/test_credentials.py",
    ),
    Mutant(
        "a mismatch is a failure like others",
        "src/uploader_cli/exit_status.py",
        "(FailureCode.INTEGRITY, FailureCode.MISMATCH)",
        "(FailureCode.INTEGRITY,)",
        "unit/test_exit_status.py",
    ),
    # Realtime, selection, settings
    Mutant(
        "failures are counted over a connection",
        REALTIME + "policy.py",
        "self._failures, self._backoff = 0, self.policy",
        "self._backoff = self.policy",
        "unit/realtime/test_realtime_policy.py",
    ),
    Mutant(
        "nothing is asked for after polling",
        REALTIME + "policy.py",
        "if self._was_live or was is ChannelState.POLLING:",
        "if self._was_live:",
        "unit/realtime/test_realtime_policy.py",
    ),
    Mutant(
        "the backoff has no limit",
        REALTIME + "policy.py",
        "min(self._backoff * 2, self.policy.backoff_max)",
        "self._backoff * 2",
        "unit/realtime/test_realtime_policy.py",
    ),
    Mutant(
        "an include outranks an exclude",
        SELECTION + "filters.py",
        "if self._include is not None and not self._include.match_file(below):",
        "if self._include is not None and self._include.match_file(below):\n            return True\n"
        "        if self._include is not None:",
        "unit/selection",
    ),
    Mutant(
        "a loop of links is walked",
        SELECTION + "walk.py",
        "or identity in directory.above:",
        "or False:",
        "unit/selection/test_selection_walk.py",
    ),
    Mutant(
        "a dangling link is unreadable",
        SELECTION + "walk.py",
        "error.errno in (errno.ENOENT, errno.ENOTDIR)",
        "error.errno == errno.ENOTDIR",
        "unit/selection/test_selection_walk.py",
    ),
    Mutant(
        "shards leave a file out",
        SELECTION + "selection.py",
        "% shard.count ==",
        "% (shard.count + 1) ==",
        "unit/selection/test_selection_shard.py",
    ),
    Mutant(
        "a server that only a directory names gets the token",
        "src/uploader_cli/settings/resolution.py",
        "if not settings.sources[name].layer.untrusted:",
        "if True:",
        "unit/test_settings_token.py unit/test_settings_resolve.py",
    ),
    Mutant(
        "unused time is made up for without limit",
        "src/uploader_cli/transfer/budget.py",
        "max(self._free_at, now - CREDIT)",
        "self._free_at",
        "unit/transfer/test_tus_limiter.py",
    ),
    Mutant(
        "a pause of the user counts as an outage",
        "src/uploader_cli/transfer/pacer.py",
        "began += self._clock() - before",
        "pass",
        "unit/transfer/test_pacer.py",
    ),
    Mutant(
        "the number of jobs that the user chose is adapted",
        "src/uploader_cli/transfer/pool.py",
        "            self.auto = None\n",
        "",
        "unit/transfer/test_pool.py",
    ),
    # The server refuses
    Mutant(
        "one client may have any number of requests",
        SERVER + "http/tracking.py",
        "elif refusal is not None:",
        "elif False:",
        "functional/server/test_server_inputs.py functional/server/test_server_shares.py",
    ),
    Mutant(
        "one client may hold everything",
        SERVER + "http/shares.py",
        "self._held[holder] >= self.each\n\n",
        "False\n\n",
        "functional/server/test_server_shares.py",
    ),
    Mutant(
        "a slow body is not ended",
        SERVER + "http/pace.py",
        "if not rate:",
        "if rate:",
        "functional/server/test_server_inputs.py",
    ),
    Mutant(
        "a stop leaves requests running",
        SERVER + "http/tracking.py",
        "task.cancel()",
        "pass",
        "functional/server/test_server_process.py",
    ),
    Mutant(
        "a POST may stand for any method",
        SERVER + "http/middleware.py",
        "return wanted if wanted in OVERRIDES else method",
        "return wanted or method",
        "functional/server/test_server_doors.py",
    ),
    Mutant(
        "the last call of a window is refused",
        SERVER + "http/middleware.py",
        "if used <= self.limit:",
        "if used < self.limit:",
        "functional/server/test_server_limits.py",
    ),
    Mutant(
        "a window of the rate limit never ends",
        SERVER + "http/middleware.py",
        "if now >= reset:",
        "if False:",
        "functional/server/test_server_limits.py",
    ),
    Mutant(
        "Retry-After is always a second",
        SERVER + "http/middleware.py",
        "str(max(1, math.ceil(reset - now)))",
        '"1"',
        "functional/server/test_server_limits.py",
    ),
    Mutant(
        "the common token deletes nothing",
        SERVER + "http/auth.py",
        "if auth_token is not None and same_token(token, auth_token):",
        "if False:",
        "functional/server/test_server_auth.py",
    ),
    Mutant(
        "any page may call",
        SERVER + "http/middleware.py",
        'if "origin" not in headers or (',
        "if True or (",
        "functional/server/test_server_origins.py",
    ),
    Mutant(
        "an early refusal reads no rest",
        SERVER + "http/tracking.py",
        "await seen.drain()",
        "pass",
        "functional/server/test_server_batch.py",
    ),
    Mutant(
        "a refused body keeps its connection",
        SERVER + "http/tracking.py",
        "if self._unread else",
        "if False else",
        "functional/server/test_server_batch.py",
    ),
    Mutant(
        "bodies have no deadline",
        SERVER + "http/errors.py",
        "await _within(max(0.0, end - asyncio.get_running_loop().time()), receive)",
        "await receive()",
        "functional/server/test_server_inputs.py",
    ),
    Mutant(
        "a full disk is a 500",
        SERVER + "storage/disk.py",
        "frozenset({errno.ENOSPC, errno.EDQUOT})",
        "frozenset({errno.EDQUOT})",
        "functional/server/test_server_fault_rules.py functional/server/test_server_batch.py",
    ),
    # The server keeps sessions
    Mutant(
        "failed files end a session as completed",
        SERVER + "session.py",
        '"partial" if self.failed else "completed"',
        '"completed"',
        "functional/server/test_server_batch.py",
    ),
    Mutant(
        "100 % comes before the end",
        SERVER + "session.py",
        "min(100 if self.ended else 99, done)",
        "min(100, done)",
        "functional/server/test_server_batch.py functional/server/test_server_events.py"
        f" {TUS}sessions.py functional/server/test_server_rest.py",
    ),
    Mutant(
        "a cancelled session is only ended",
        SERVER + "sessions.py",
        '"CANCELLED" if session.status == "cancelled" else "SESSION_ENDED"',
        '"SESSION_ENDED"',
        f"functional/server/test_server_rest.py functional/server/test_server_batch.py {TUS}sessions.py",
    ),
    Mutant(
        "paths without files are taken",
        SERVER + "batch/intake.py",
        "if self.paths and len(self.paths) != len(self.files):",
        "if False:",
        "functional/server/test_server_batch.py",
    ),
    Mutant(
        "a batch of another category is taken",
        SERVER + "batch/intake.py",
        'if self.session is not None and self.texts.get("category") not in {None, self.session.category}:',
        "if False:",
        "functional/server/test_server_batch.py",
    ),
    # The server resumes uploads
    Mutant(
        "uploads do not expire",
        SERVER + "tus/uploads.py",
        "self.clock.now() > self.expires(upload)",
        "False",
        f"{TUS}restart.py {TUS}creation.py {TUS}core.py",
    ),
    Mutant(
        "anybody deletes the file of a session",
        SERVER + "tus/uploads.py",
        "check_token(authorization, self.sessions.config.jwt_secret, self.sessions.config.auth_token)",
        "pass",
        f"{TUS}sessions.py {TUS}core.py {TUS}creation.py",
    ),
    Mutant(
        "any checksum matches",
        SERVER + "tus/body.py",
        "self._digest.digest() == self._checksum.expected",
        "True",
        f"{TUS}checksum.py",
    ),
    Mutant(
        "refused bytes stay in the file",
        SERVER + "tus/body.py",
        "await asyncio.to_thread(store.cut, upload, upload.offset)",
        "pass",
        f"{TUS}checksum.py {TUS}random.py",
    ),
    Mutant(
        "a cancelled session takes an upload over",
        SERVER + "tus/body.py",
        'self._session.status == "cancelled"',
        "False",
        f"{TUS}sessions.py {TUS}writers.py",
    ),
    Mutant(
        "any version of tus is taken",
        SERVER + "tus/routes.py",
        'request.headers.get("tus-resumable") != VERSION',
        "False",
        f"{TUS}core.py",
    ),
    # Checks of a server
    Mutant(
        "an optional check excuses a required one",
        CHECKS + "smoke/__init__.py",
        "if found.check.required or not check.required",
        "if True",
        "unit/smoke/test_smoke_runner.py",
    ),
    Mutant(
        "findings are not masked",
        CHECKS + "check.py",
        "finding = _masked(result.finding)",
        "finding = result.finding",
        "unit/doctor/test_doctor_examination.py",
    ),
    Mutant(
        "a failed step blocks no other",
        CHECKS + "doctor/__init__.py",
        "if found.id == step.rests_on and found.verdict is Verdict.FAIL:",
        "if False:",
        "unit/doctor/test_doctor_examination.py",
    ),
    Mutant(
        "stored bytes are not compared",
        CHECKS + "smoke/expect.py",
        "if found != sent:",
        "if found is None:",
        "functional/smoke/test_smoke_broken_servers.py",
    ),
    Mutant(
        "no calls are reserved for the clean-up",
        CHECKS + "smoke/site.py",
        "(self.remaining if self.cleaning else self.spare) < 1 + leaves",
        "self.remaining < 1",
        "functional/smoke/test_smoke_runs.py",
    ),
    # Names that are taken
    Mutant(
        "a pack renames a file that must fail",
        SERVER + "storage/put.py",
        "if not file.may_rename:",
        "if False:",
        "cli/test_upload_if_exists.py",
    ),
    Mutant(
        "a resumed file counts as taken",
        "src/uploader_cli/transfer/checks.py",
        "if not isinstance(item, Found) or claim.state is ClaimState.RESUME:",
        "if not isinstance(item, Found):",
        "cli/test_upload_if_exists.py",
    ),
    # Uploads that exist already, and streams
    Mutant(
        "an upload URL gets the credentials of another server",
        "src/uploader_cli/transfer/http.py",
        "if not trusts(self._trusted, request.url):",
        "if not trusts(self.settings.target_url, request.url):",
        "cli/test_upload_url.py",
    ),
    Mutant(
        "an upload URL stays in the journal",
        "src/uploader_cli/transfer/journal/writing.py",
        "            db.execute(_WITHOUT_URL, (run,))\n",
        "",
        "cli/test_upload_url.py",
    ),
    Mutant(
        "an upload that is gone is created again",
        "src/uploader_cli/transfer/part.py",
        "        if self._state.file.upload_url:\n            words = f\"its upload can't",
        "        if False:\n            words = f\"its upload can't",
        "cli/test_upload_url.py",
    ),
    Mutant(
        "a deferred length is sent with each chunk",
        "src/uploader_cli/transfer/part.py",
        "self._deferred = self._deferred and length is None",
        "pass",
        "cli/test_upload_url.py",
    ),
    # The page
    Mutant(
        "the list of sessions needs no token",
        SERVER + "http/middleware.py",
        '"/openapi.json", *FILES}',
        '"/openapi.json", "/api/activity", *FILES}',
        "functional/server/test_server_page.py",
    ),
    # Who may write
    Mutant(
        "everybody who watches may write to an upload",
        SERVER + "tus/upload.py",
        'fields.get("relativePath") or None, self.length, self.file_id)',
        'fields.get("relativePath") or None, self.length, self.id)',
        "functional/server/test_server_strangers.py",
    ),
    Mutant(
        "everybody may write to a session",
        SERVER + "sessions.py",
        "if not mine or (session.owner",
        "if (session.owner",
        "functional/server/test_server_strangers.py",
    ),
    Mutant(
        "the journal gives a secret to every server",
        TRANSFER + "journal/reading.py",
        "WHERE session.id = ? AND server = ?",
        "WHERE session.id = ? AND ? != ''",
        "cli/test_session_secrets.py",
    ),
    # Digests
    Mutant(
        "a digest needs a second pass",
        TRANSFER + "bodies.py",
        "self._on_read(file, start + done, piece[filled:])",
        "pass",
        "cli/test_upload_digest.py",
    ),
    Mutant(
        "a resumed file is hashed from its offset on",
        "src/uploader_cli/sources/content.py",
        "if prefix.length < end:",
        "if False:",
        "cli/test_upload_digest.py",
    ),
    Mutant(
        "check compares sizes",
        "src/uploader_cli/run/compare.py",
        "if (found.size, found.sha256) == (file.size, mine):",
        "if found.size == file.size:",
        "cli/test_check.py",
    ),
)
