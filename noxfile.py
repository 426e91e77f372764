"""One word for each job of the project: `nox -s test`, `lint`, `mutants`, `bench`, `docs`, `package`."""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.sessions = ["lint", "test"]
nox.options.default_venv_backend = "venv"
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
LOWEST = Path("build/lowest.txt")


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


@nox.session
def package(session: nox.Session) -> None:
    """Build all artifacts of a release in build/dist, twice, and use each in an empty environment."""
    tools = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "package")
    session.install(*tools, "-e", ".[dev]")
    session.run("python", "packaging/artifacts.py", "build/dist")
    dist = str(Path("build/dist").resolve())
    session.run("python", "-m", "pytest", "-n", "0", "-m", "package", *session.posargs, env={"DIST": dist})
