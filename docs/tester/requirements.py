"""Write docs/tester/requirements.md: each requirement of the draft, and the check that tests it.

A requirement is a keyword of RFC 2119 in the draft's text of 1 July 2026: the section, the keyword, and its place among
all keywords of the section. The descriptions here are ours.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from uploader_cli.features.checks.check import Check
from uploader_cli.features.smoke.runner import ON_REQUEST
from uploader_cli.features.tester.judge import PROTOCOLS

SITUATIONS = PROTOCOLS["ietf"][1]
PAGE = Path(__file__).with_suffix(".md")

TEXT = """
4 SHOULD 1|server|Each upload resource is unique.|not visible
4 SHOULD 2|server|The URL of an upload is not used for another one.|not visible
4.1.1 MUST NOT 1|server|The offset never gets smaller.|`ietf-append`
4.1.1 MUST 2|server|An upload whose state is partly lost refuses everything.|not visible
4.1.1 MUST 3|client, server|An offset that is no integer counts as absent.|`ietf-malformed`
4.1.2 MUST 1|client, server|A completeness that is no boolean counts as absent.|`ietf-malformed-end`
4.1.2 SHOULD NOT 2|client|Nothing is resumed after the answer that the upload is complete.|
4.1.3 SHOULD 1|client|The length is told once it is known.|
4.1.3 MUST 2|client, server|A length that is no integer counts as absent.|`ietf-malformed-length`
4.1.3 MUST 3|client|Two lengths in one request are equal.|
4.1.3 MUST 4|client|The lengths of several requests are equal.|
4.1.4 MAY 1|server|There may be limits.|optional
4.1.4 MUST 2|client|Limits that are no dictionary count as absent.|
4.1.4 MUST NOT 3|client|No content is larger than a known `max-append-size`.|
4.1.4 MUST NOT 4|client|No content is smaller than a known `min-append-size`.|no check yet
4.1.4 SHOULD NOT 5|client|An upload is left alone once its `max-age` is over.|a check would have to wait
4.1.4 SHOULD NOT 6|server|Limits do not change to the disadvantage of clients.|`ietf-limits-kept`
4.1.4 SHOULD 7|client|An upload that can't keep the limits is stopped and cancelled.|
4.1.4 SHOULD NOT 8|server|The maxima do not get smaller.|`ietf-limits-kept`
4.1.4 SHOULD NOT 9|server|The minima do not get larger.|`ietf-limits-kept`
4.1.4 SHOULD NOT 10|server|The end of the lifetime does not come nearer.|`ietf-max-age`
4.1.4 MUST 11|client|Unknown limits are ignored.|
4.1.4 MUST 12|client|A known limit with a value of another type invalidates the whole field.|
4.1.4 MUST 13|client|Or it invalidates the whole message.|an alternative to the one before
4.1.4 MUST 14|server|OPTIONS of a URL that creates uploads has the limits.|`ietf-options`
4.1.4 SHOULD 15|server|OPTIONS of `*` has limits that are the same everywhere.|only if all resources have them
4.1.4 MUST 16|server|Without a limit the field is `min-size=0`.|`ietf-options`
4.1.4 SHOULD NOT 17|server|OPTIONS does not announce more than uploads get.|`ietf-limits-announced`
4.1.4 SHOULD 18|server|A 413 because of a limit has the limits.|`ietf-max-size`, `ietf-max-append-size`
4.1.4 SHOULD 19|client|After 413 the request is repeated with less content.|
4.2.1 SHOULD 1|client|A known length is told with the creation.|
4.2.1 SHOULD 2|client|The limits of interim and final answers are kept.|
4.2.1 SHOULD 3|client|A file above the maximum is not sent to its end, and its upload is cancelled.|
4.2.1 RECOMMENDED 4|client|A file name has the disposition `inline`.|no check yet: a client needs no file name
4.2.1 SHOULD NOT 5|client|A creation that got 4xx is not repeated.|
4.2.1 MAY 6|client|After 5xx or a lost answer the upload may be resumed.|
4.2.2 SHOULD 1|server|A 104 announces the upload.|`ietf-104`
4.2.2 MUST 2|server|This 104 has the URL of the upload.|`ietf-104`
4.2.2 MUST 3|server|This 104 has the limits.|`ietf-104`
4.2.2 MUST 4|server|The answer to an incomplete creation has the URL of the upload.|`ietf-creation`, `ietf-part`
4.2.2 MUST 5|server|This answer has the limits.|`ietf-creation`, `ietf-part`
4.2.2 RECOMMENDED 6|server|This answer is 201.|`ietf-created`
4.2.2 MUST 7|server|A length in the creation is kept.|`ietf-creation`
4.2.2 MAY 8|server|Further 104 tell the progress.|optional
4.2.2 MUST 9|server|All answers to a creation have one URL.|`ietf-104-same`
4.2.2 SHOULD 10|client|Different URLs in the answers to a creation are noticed.|
4.2.2 SHOULD 11|client|Then the upload is cancelled.|
4.2.2 SHOULD 12|server|The answer says whether the upload is complete.|`ietf-whole`
4.2.2 SHOULD 13|server|Content that has arrived before an interruption is kept.|`ietf-cut-creation`
4.2.2 MUST NOT 14|server|An interrupted creation completes nothing.|`ietf-cut-creation`
4.3.1 RECOMMENDED 1|client|The offset is asked for with HEAD.|
4.3.1 MUST 2|client|An offset that the client can't serve is a failure.|
4.3.1 MUST NOT 3|client|Such an upload is not continued.|
4.3.1 SHOULD 4|client|Such an upload is cancelled.|
4.3.1 MUST NOT 5|client|The offset is not asked for while content is on its way.|
4.3.1 MAY 6|client|307 and 308 may be followed.|
4.3.1 SHOULD NOT 7|client|After 4xx the upload is not resumed.|
4.3.1 MAY 8|client|After 5xx the question may be repeated.|optional
4.3.2 MUST 1|server|HEAD has the offset.|`ietf-creation`, `ietf-get`
4.3.2 MUST 2|server|HEAD says whether the upload is complete.|`ietf-creation`, `ietf-get`
4.3.2 MUST 3|server|HEAD has the length if it is known.|`ietf-creation`
4.3.2 MUST 4|server|HEAD has the limits.|`ietf-creation`, `ietf-get`
4.3.2 SHOULD 5|server|HEAD is not cached.|`ietf-no-store`
4.3.2 SHOULD NOT 6|server|HEAD is not answered with 301 or 302.|`ietf-redirects`
4.4.1 MUST 1|client|An append has its offset.|
4.4.1 SHOULD 2|client|The offset is that of the last answer.|
4.4.1 MUST 3|client|An append says whether it is the last one.|
4.4.1 MAY 4|client|307 and 308 may be followed.|
4.4.1 SHOULD NOT 5|client|After 4xx the append is not repeated.|
4.4.1 MAY 6|client|After 5xx the upload may be resumed.|
4.4.1 MAY 7|client|After a lost answer the upload may be resumed.|
4.4.2 SHOULD 1|server|Content that has arrived before an interruption is kept.|`ietf-resume`
4.4.2 MUST NOT 2|server|An interrupted append completes nothing.|`ietf-resume`
4.4.2 MUST 3|server|An append at a wrong offset gets 409 and `?0`.|`ietf-offset`
4.4.2 MUST 4|server|This answer has the right offset.|`ietf-offset`
4.4.2 SHOULD 5|server|The last append gets the answer that one request would have got.|`ietf-same-answer`
4.4.2 MUST 6|server|The answer to a complete upload says so.|`ietf-append`
4.4.2 MUST 7|server|A length in an append is kept.|`ietf-deferred-length`
4.4.2 MUST 8|server|Content beyond the length invalidates the upload.|`ietf-overrun`, `ietf-chunked`
4.4.2 SHOULD 9|server|104 tell the progress of an append.|`ietf-104-progress`
4.4.2 MUST NOT 10|server|These 104 have no URL.|`ietf-104-append`
4.4.2 SHOULD 11|server|The answer says whether the upload is complete.|`ietf-append`
4.5.2 SHOULD 1|server|DELETE ends the upload.|`ietf-cancel`
4.5.2 SHOULD 2|server|DELETE ends requests that are under way.|`ietf-cancel-open`
4.5.2 SHOULD NOT 3|server|DELETE is not answered with 301 or 302.|`ietf-redirects`
4.6 MUST NOT 1|client|Content of one upload is not sent in parallel.|
4.6 MUST 2|server|Concurrent appends and cancellations do no harm.|`ietf-concurrency`
4.6 MUST NOT 3|server|HEAD tells no offset of the past.|`ietf-concurrency`
4.6 MUST 4|server|The offset that HEAD tells is accepted.|`ietf-concurrency`, `ietf-resume`
4.6 RECOMMENDED 5|server|A newer request ends the older one.|`ietf-newer`
4.6 SHOULD 6|server|The older one is ended before the newer one is processed.|`ietf-newer`
4.6 MAY 7|server|The connection of the older one may be broken off.|optional
5 MAY 1|client|A 104 may count as 100 (Continue).|optional
5 MUST NOT 2|server|A 104 does not replace a 100.|`ietf-100`
7.1 SHOULD 1|server|The problem of a wrong offset has both offsets.|`ietf-problem-offset`
10.1 SHOULD 1|server|A file with another digest is refused.|`ietf-repr-digest`
10.1 SHOULD 2|server|A digest that was asked for is sent.|`ietf-want-digest`
10.1 SHOULD 3|server|It is computed at the end of the upload.|`ietf-want-digest`
10.2 SHOULD 1|server|Content with another digest is refused.|`ietf-digest`
11.1.1 SHOULD 1|client|An upgraded request has the length.|
12 RECOMMENDED 1|client|Content is sent as it comes, with little buffering.|not visible
13 SHOULD 1|server|Only authorized clients reach an upload.|depends on the server's users
13 RECOMMENDED 2|server|The URL of an upload can't be guessed.|not visible
13 MUST 3|server|The URL tells nothing that is internal.|not visible
13 MUST 4|server|Metadata is validated before it is used.|not visible
13 SHOULD 5|server, intermediary|Scanners expect content in several requests.|not visible
13 SHOULD 6|server|Permissions are checked again at the end.|depends on the server's users
13 SHOULD 7|server|Slow uploads do not exhaust the server.|a check would be an attack
B MUST 1|client|Each request has the interop version.|
B MUST NOT 2|server|Without the same version there is no 104.|`ietf-104-mismatch`, `ietf-version`
B MUST 3|server|A 104 has the interop version.|`ietf-104-version`
B MUST 4|client|A 104 of another version is ignored.|
"""


class Requirement(NamedTuple):
    """`reason` has the checks of `smoke`, or says why there is none; for clients it is empty if `judge` tests it."""

    section: str
    keyword: str
    number: int
    binds: str
    says: str
    reason: str

    @property
    def id(self) -> str:
        return f"{self.section}/{self.keyword}/{self.number}"


def requirements() -> list[Requirement]:
    """Return all requirements, in the order of the draft."""
    found = []
    for line in TEXT.strip().splitlines():
        name, binds, says, reason = line.split("|")
        section, *keyword, number = name.split()
        found.append(Requirement(section, " ".join(keyword), int(number), binds, says, reason))
    return found


def page() -> str:
    """Return the text of the page."""
    tested = {
        name: [one.check.id for one in SITUATIONS if name in one.tests] for one in SITUATIONS for name in one.tests
    }
    every = requirements()
    client = [one for one in every if "client" in one.binds]
    server = [one for one in every if "server" in one.binds]
    done = sum(one.id in tested for one in client)
    return "\n".join(
        [
            HEAD,
            f"`judge` tests {done} of the {len(client)} requirements for clients.",
            *_listed("clients", client, {one.id: _of_client(one, tested) for one in client}),
            *_listed("servers", server, {one.id: one.reason for one in server}),
            "",
            "## Without a keyword",
            "",
            "What else `smoke` tests: the draft describes it without one of these keywords.",
            "",
            *(f"- {check.description.removeprefix('ietf: ')} (`{check.id}`)" for check in without_keyword(server)),
            "",
        ]
    )


def without_keyword(server: list[Requirement]) -> list[Check]:
    """Return the checks of `smoke` that no requirement names."""
    named = {name for one in server for name in re.findall("`(.*?)`", one.reason)}
    return [check for check in ON_REQUEST if check.id not in named]


def _of_client(one: Requirement, tested: dict[str, list[str]]) -> str:
    """Return the situations that test a requirement, or why there is none."""
    found = ", ".join(f"`{check}`" for check in tested.get(one.id, ()))
    return found or (UNTESTED if "server" in one.binds else one.reason)


def _listed(bound: str, every: list[Requirement], checks: dict[str, str]) -> list[str]:
    """Return the lines of the requirements for clients or servers, by sections of the draft."""
    lines, section = ["", f"## For {bound}"], ""
    for one in every:
        if one.section != section:
            section = one.section
            lines += ["", f"**{section}**", ""]
        mark = f" ({checks[one.id]})" if checks[one.id] != UNTESTED else ""
        lines.append(f"- {one.keyword} {one.number}: {one.says}{mark}")
    return lines


UNTESTED = "no check yet"
HEAD = """# Requirements of the draft

What does the [draft](https://datatracker.ietf.org/doc/draft-ietf-httpbis-resumable-upload/) require, and which check
tests it? This page follows the text of 1 July 2026 (interop version 8). The requirements are listed by sections of the
draft; B is its appendix on versions. Each has the draft's keyword, and a number: its place among all keywords of the
section.

The check stands in brackets, or the reason why there is none. A requirement without brackets has no check yet.
[`uploader judge`](index.md) tests clients. [`uploader smoke`](../smoke.md) tests servers, and may test only a part of a
requirement. `python docs/tester/requirements.py` writes this page.
"""

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
