"""Judge the clients of npm and PyPI, curl and `uploader`, and write the table of `docs/tester/index.md`.

`python tests/interop/judged_clients.py DIRECTORY` installs the packages of npm there; tuspy is in the extra `dev`.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/tester/index.md"
BEGIN, END = "<!-- table: python tests/interop/judged_clients.py -->\n", "<!-- end of the table -->\n"
NPM = ("tus-js-client@^4.3.1", "tus-js-client-5@npm:tus-js-client@5.0.0-pre2", "@uppy/core@^5", "@uppy/tus@^5")
UPLOADER = (
    "uploader upload {file} --tus-endpoint {url} --state-dir $(mktemp -d) --max-wait 5 --retries 3 --quiet --protocol"
)


class Client(NamedTuple):
    """A client; the first word of `version` says where its version is from."""

    name: str
    protocol: str
    command: str
    version: tuple[str, str]


NODE = "node judged.mjs tus-js-client"
CLIENTS = [
    Client("uploader", "ietf", f"{UPLOADER} ietf", ("pypi", "uploader-cli")),
    Client(
        "tus-js-client 5",
        "ietf",
        "node judged.mjs tus-js-client-5 ietf-draft-05 {url} {file}",
        ("npm", "tus-js-client-5"),
    ),
    Client("curl", "ietf", "curl -sS -f -T {file} {url}", ("curl", "")),
    Client("uploader", "tus", f"{UPLOADER} tus", ("pypi", "uploader-cli")),
    Client("tuspy", "tus", f"{sys.executable} judged_tuspy.py {{url}} {{file}}", ("pypi", "tuspy")),
    Client("tus-js-client 4", "tus", f"{NODE} tus-v1 {{url}} {{file}}", ("npm", "tus-js-client")),
    Client("tus-js-client 5", "tus", f"{NODE}-5 tus-v1 {{url}} {{file}}", ("npm", "tus-js-client-5")),
    Client("Uppy", "tus", "node judged_uppy.mjs {url} {file}", ("npm", "@uppy/tus")),
]


def version(client: Client, directory: Path) -> str:
    source, name = client.version
    if source == "npm":
        return str(json.loads((directory / "node_modules" / name / "package.json").read_text())["version"])
    if source == "pypi":
        return importlib.metadata.version(name)
    return subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


def row(client: Client, directory: Path) -> str:
    """Judge a client, and return its row. Raises `CalledProcessError` if it is ours and violates a requirement."""
    own = Path(sys.executable).parent / "uploader"
    command = client.command.replace("uploader upload", f"{shlex.quote(str(own))} upload")
    judge = [str(own), "judge", "--protocol", client.protocol, "--timeout", "30", "--json", "--for", command]
    done = subprocess.run(judge, cwd=directory, capture_output=True, text=True, check=False)
    (directory / f"{client.name} {client.protocol}.json").write_text(done.stdout)
    if client.name == "uploader":
        done.check_returncode()
    *checks, _ = map(json.loads, done.stdout.splitlines())
    cells = []
    for verdicts in (("pass",), ("warning",), ("fail", "error"), ("not_offered",)):
        found = [one["id"].partition("-")[2] for one in checks if one["verdict"] in verdicts]
        named = verdicts[0] in ("warning", "fail")
        cells.append(", ".join(f"`{name}`" for name in found) if named else str(len(found)))
    protocol = {"ietf": "IETF", "tus": "tus 1.0"}[client.protocol]
    return f"| {client.name} | {version(client, directory)} | {protocol} | {' | '.join(cells)} |"


def main(place: str) -> None:
    """Write the table to the page."""
    directory = Path(place)
    directory.mkdir(parents=True, exist_ok=True)
    for path in HERE.glob("judged*.*"):
        shutil.copy(path, directory)
    (directory / "package.json").write_text('{"private": true, "type": "module"}')
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", *NPM], cwd=directory, check=True)
    lines = [
        "| client | version | protocol | right | discouraged | wrong | not offered |",
        "|---|---|---|---|---|---|---|",
        *(row(client, directory) for client in CLIENTS),
    ]
    today = dt.datetime.now(dt.UTC).date()
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    table = "\n".join([*lines, "", f"Run on {today} with Python {sys.version.split()[0]}.", ""])
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
