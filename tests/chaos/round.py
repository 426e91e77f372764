"""One round: its tree, its server, its calls of the client, and all checks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxy import Proxy

from chaos import invariants
from chaos.changes import Changes
from chaos.endings import end_at_random
from chaos.invariants import Tree
from chaos.lies import Liar
from chaos.neighbour import Neighbour, Scratch, shared_directory
from chaos.plan import Invocation, Plan, Strike
from chaos.processes import Client, Ended, Find, Secrets, Server
from chaos.stranger import Stranger
from chaos.trees import make_tree
from chaos.tus import TusServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ENDS = (signal.SIGKILL, signal.SIGTERM)
"""How the server ends after the first call, after the second …"""
LAST_TRIES = 3
"""Calls of the client after the faults have ended: one for each outcome that an earlier one may have left."""


@dataclass
class Result:
    """The result of a round."""

    plan: Plan
    codes: list[int] = field(default_factory=list)
    kills: int = 0
    """Signals that were sent, and kills of the server."""
    hits: int = 0
    """Requests and events that faults hit since the last start of the server."""
    seconds: float = 0.0
    find: str = ""

    def __str__(self) -> str:
        plan = self.plan
        where = "shared" if plan.shared else plan.flavour
        verdict = f"FIND {self.find}" if self.find else "ok"
        return (
            f"seed {plan.seed}: {where}, {len(plan.sizes)} files, {len(plan.rules)} faults ({self.hits} hits),"
            f" {self.kills} kills, exit codes {' '.join(map(str, self.codes))}, {self.seconds:.0f} s: {verdict}"
        )


def run_round(plan: Plan, directory: Path, shared: Server | None, secrets: Secrets) -> Result:
    """Run one round in `directory` and return its result. The `shared` server is used if the plan says so."""
    result, began = Result(plan), time.monotonic()
    one = Round(plan, directory, shared if plan.shared else None, secrets, result)
    try:
        one.run()
    except Find as find:
        result.find = str(find)
    finally:
        one.close()
    result.seconds = time.monotonic() - began
    return result


class Round:
    """The state of a round, and its steps."""

    def __init__(self, plan: Plan, directory: Path, shared: Server | None, secrets: Secrets, result: Result) -> None:
        self.plan, self.directory, self.result, self.secrets = plan, directory, result, secrets
        self.home = directory / "home"
        self.home.mkdir(parents=True)
        top = directory / f"tree-{plan.seed}"
        make_tree(top, plan.sizes, plan.seed)
        found = invariants.digests(top)
        self.tree = Tree(top, {f"{top.name}/{invariants.stored_name(name)}": found[name] for name in found})
        self.changes = Changes(self.tree, directory, plan.seed)
        self.own = shared is None
        self.server: Server | TusServer = shared or self._own_server()
        self.stranger = Stranger(self.server, self.home, secrets.token) if plan.flavour == "bundled" else None
        self.category = "scenic" if "scenic" in plan.client else "personal"
        self.client: Client | None = None
        self.proxy: Proxy | None = None
        self._output = 0 if self.own else (self.server.directory / "output.txt").stat().st_size
        self.sessions_ended = False
        self._last: list[dict[str, Any]] = []
        """The events of the last call."""
        self._killed = False
        """Whether what a client left when it was ended at once may still be there."""
        self._listed: Path | None = None
        """What it left to be sent, as it said."""

    def run(self) -> None:
        if self.own:
            self.server.start(self.plan.rules)
        else:
            self.server.change(self.plan.rules)
        if self.plan.proxy:
            self.proxy = Proxy(f"http://127.0.0.1:{self.server.port}")
        if self.plan.neighbour is not None:
            self._meet_neighbour(self.plan.neighbour)
        if self.plan.trap:
            self._meet_trap(self.plan.trap)
        if self.plan.endings:
            self._end_sessions()
        for number, invocation in enumerate(self.plan.invocations):
            ended = self._call(invocation)
            if not self.plan.forgets:
                self._check_stored(finally_=False)
            if self.own and isinstance(self.server, Server):
                self.server.restart(ENDS[number % 2], self.plan.rules, 0.0, self._look)
                self.result.kills += 1
            if ended.code == 0 or (self.plan.flavour == "reference" and self._is_all_stored()):
                break  # it would store a second time what a later run sends again
        self._end_faults()
        self._finish()
        if self.stranger is not None:
            self.stranger.check()
        if self.own and isinstance(self.server, Server):
            self.server.stop()
            # a fault may make the client begin an upload again, and leave the first one to expire
            invariants.check_left_by_server(
                self.server,
                unfinished=bool(self.plan.rules or self.plan.trap or self.tree.changed or self.sessions_ended),
                forgot=self.plan.forgets,
            )
        self._check_texts()

    def _end_sessions(self) -> None:
        try:
            asyncio.run(end_at_random(self.directory / "endings", self.plan.seed, self.plan.endings))
        except AssertionError as wrong:
            raise Find(str(wrong)) from wrong

    def _meet_neighbour(self, name: str) -> None:
        """Call the client once with a state directory to which another user may write."""
        neighbour = Neighbour(self.directory / "shared", name)
        options = ["upload", *self.plan.client, *self.server.address, "--state-dir", str(neighbour.directory)]
        neighbour.check(self._call_once(options, [self.tree.top]), self.secrets)

    def _meet_trap(self, trap: str) -> None:
        """Call the client once where a directory, an output or a source is not what it seems."""
        upload, spool = ["upload", *self.plan.client, *self.server.address], self.directory / "spool"
        importing = ["import", "--on", "local:2", *self.server.address]
        if trap == "scratch":
            scratch = Scratch(spool)
            scratch.check(self._call_once(importing, [self.tree.top], TMPDIR=str(spool)))
        elif trap == "temporary":
            shared_directory(spool, 0o777)
            ended = self._call_once(importing, [self.tree.top], TMPDIR=str(spool))
            if ended.code != 2 or any(spool.iterdir()):
                raise Find(f"exit code {ended.code} of an import where others may replace its temporary files")
        elif trap == "pipe":
            pipe = self.directory / "links.txt"
            os.mkfifo(pipe)
            interrupt = Strike("client", signal.SIGINT, 10_000, 0.0)
            ended = self._call_once([*upload, "--links", str(pipe)], [self.tree.top], strikes=[interrupt])
            pipe.unlink()  # a reader of all files that are left would wait for it
            if ended.code == 0:
                raise Find("exit code 0 although nobody has read an output")
        else:
            with Liar(trap, f"lies-{self.plan.seed}.bin") as liar:
                liar.check(self._call_once(upload, [liar.url]), self.server.root)

    def _call_once(
        self, options: list[str], paths: Sequence[Path | str], *, strikes: Sequence[Strike] = (), **env: str
    ) -> Ended:
        """Call the client with a home of its own; its run has nothing to do with the others of the round."""
        home = self.directory / "home of one call"
        env |= {"UPLOADER_TOKEN": self.secrets.token}
        number = len(list(self.directory.glob("once-*")))
        self.client = Client(self.directory / f"once-{number}", home, options, paths, env)
        return self.client.run(strikes, self.server, (), self._look)

    def _own_server(self) -> Server | TusServer:
        place = self.directory / "server"
        if self.plan.flavour == "tus":
            return TusServer(place, self.plan.seed)
        return Server(place, self.plan.server, self.secrets.token)

    def close(self) -> None:
        """End all processes of the round."""
        if self.client is not None:
            self.client.kill()
        if self.own:
            self.server.kill()
        else:
            with contextlib.suppress(OSError, Find):
                self.server.change([])
        if self.proxy is not None:
            self.proxy.close()

    def _call(self, invocation: Invocation, *more: str) -> Ended:
        listed: Path | None = None
        options, paths = ["upload", *self.plan.client, *self.server.address, *more], [self.tree.top]
        if invocation.command == "resume" and self._may_resume():
            options, paths = ["resume"], []
        elif invocation.command == "list" and (listed := self._list_without_links()) is not None:
            options, paths = [*options, "--from-file", str(listed)], []
        number = len(self.result.codes) + 1
        env = {"UPLOADER_TOKEN": self.secrets.token, "UPLOADER_HEADER": f"X-Canary: {self.secrets.header}"}
        if self.proxy is not None:
            env["UPLOADER_PROXY"] = f"http://user:{self.secrets.password}@127.0.0.1:{self.proxy.port}"
        self.client = Client(self.directory / f"call-{number}", self.home, options, paths, env)
        ended = self.client.run(invocation.strikes, self.server, self.plan.rules, self._look, self._do)
        self.result.codes.append(ended.code)
        self.result.kills += ended.strikes
        self._check(ended, listed)
        return ended

    def _list_without_links(self) -> Path | None:
        """Return what is left as a list, without paths that lead out of the tree: listed links are followed."""
        if self._listed is None:
            return None
        lines, top = self._listed.read_text(encoding="utf-8").splitlines(), self.tree.top.resolve()
        kept = [line for line in lines if invariants.path_in(json.loads(line)).resolve().is_relative_to(top)]
        listed = self._listed.with_name("list.jsonl")
        listed.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        return listed if kept else None

    def _may_resume(self) -> bool:
        """Return True if the last call started a run and did not complete it."""
        return bool(self._last) and self._last[-1].get("exit_code") != 0

    def _check(self, ended: Ended, listed: Path | None) -> None:
        self._last = invariants.events_of(ended)
        left = ended.directory / "failed.jsonl"
        self._listed = left if left.exists() else None
        invariants.remember_selection(self.tree, self._last, listed)
        invariants.check_invocation(self.tree, ended, self._last)
        if ended.killed or (not self._last and len(ended.sent) > 1):  # before a run a second signal ends it at once
            self._killed = True
        elif self._last:  # it has opened the journal, and has had the time to close it
            self._killed = False
        invariants.check_left_by_client(self.home, killed=self._killed)
        self._check_texts()

    def _check_stored(self, *, finally_: bool) -> None:
        invariants.check_stored(self.plan, self.tree, self.server, self.category, finally_=finally_)

    def _do(self, strike: Strike) -> None:
        """Do what another program or another client does during a call."""
        if strike.whom == "session" and self.stranger is not None:
            self.stranger.end(strike.act)
            self.sessions_ended = True
        else:
            self.changes.make(strike.act, self.directory / f"call-{len(self.result.codes) + 1}" / "out.jsonl")

    def _is_all_stored(self) -> bool:
        """Return whether each file is reported complete, as also where only an analysis failed."""
        return self.tree.digests.keys() <= self.tree.confirmed.keys() | self.tree.left_out

    def _look(self, when: str) -> None:
        """Look at the stored files, whatever the client knows of them."""
        invariants.check_complete(self.plan, self.tree, self.server, self.category, when)

    def _end_faults(self) -> None:
        """End all faults: restart the server without them, or remove them."""
        with contextlib.suppress(OSError):  # one of them may concern this call, too
            self.result.hits = self.server.hits()
        if self.own:
            self.server.stop()
            self.server.start()
        else:
            self.server.change([])

    def _finish(self) -> None:
        """Check that the same command completes without faults and that every file is then stored once."""
        more = ["--skip-existing", "--no-fail-fast"]
        if self.plan.flavour == "reference":  # it can't be asked for what it stored without telling where
            more.append("--trust-receipts")
        elif self.plan.flavour == "tus":  # nothing tells what became of a file after the error of a gateway
            more.append("--resend-unknown")
        for _ in range(LAST_TRIES):
            if self.plan.forgets:
                self.tree.confirmed.clear()
            ended = self._call(Invocation(), *more)
            if ended.code == 0 or (self.plan.flavour == "reference" and ended.code == 4 and self._is_settled()):
                break
        else:
            raise Find("the same command does not complete after the faults have ended")
        self._check_stored(finally_=True)

    def _is_settled(self) -> bool:
        """Return True if only files of unknown outcome have failed. The analysis of others may have failed.

        A file whose only confirmation is `/progress` can't be analysed, because its location is unknown.
        """
        return not any(event["type"] == "file.failed" and event["code"] != "outcome_unknown" for event in self._last)

    def _check_texts(self) -> None:
        root = self.server.root
        if self.tree.changed:
            self.changes.check([root if self.own else root / self.category / self.tree.top.name])
        leave = [
            self.tree.top,
            self.directory / "outside",
            root / "personal",
            root / "scenic",
            self.server.directory / "token",
        ]
        invariants.check_texts(invariants.texts_below(self.directory, leave), self.secrets)
        if not self.own:
            with (self.server.directory / "output.txt").open("rb") as output:
                output.seek(self._output)
                invariants.check_texts([("the output of the server", output.read())], self.secrets)


def forget_round(directory: Path) -> None:
    """Remove the directory of a round that found nothing."""
    shutil.rmtree(directory, ignore_errors=True)
