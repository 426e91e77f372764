"""`--shard`: its values, and the variables of schedulers."""

from __future__ import annotations

from pathlib import Path

import pytest

from uploader_cli.errors import UsageError
from uploader_cli.settings import resolve, storable


def shard(said: str | None, env: str = "", *, stored: str | None = None) -> str | None:
    """Return the resolved shard; `env` is written as `NAME=value NAME=value`."""
    variables = dict(word.split("=", 1) for word in env.split())
    settings = resolve(
        {"server": "localhost", "shard": said},
        env=variables,
        cwd=Path("/"),
        user_config=None,
        stored={"shard": stored} if stored else None,
    )
    return settings.shard


K8S = "JOB_COMPLETION_INDEX={}"
SLURM = "SLURM_ARRAY_TASK_ID={} SLURM_ARRAY_TASK_COUNT={} SLURM_ARRAY_TASK_MIN={}"
GITLAB = "CI_NODE_INDEX={} CI_NODE_TOTAL={}"


@pytest.mark.parametrize(
    ("said", "env", "settled"),
    [
        (None, "", None),
        ("none", "UPLOADER_SHARD=1/2", None),
        ("1/1", "", "1/1"),
        (" 3/4 ", "", "3/4"),
        ("04/10", "", "4/10"),
        # Kubernetes counts from 0
        ("auto/4", K8S.format(0), "1/4"),
        ("auto/4", K8S.format(3), "4/4"),
        # a SLURM array from what it likes
        ("auto", SLURM.format(0, 4, 0), "1/4"),
        ("auto", SLURM.format(7, 4, 5), "3/4"),
        ("auto", SLURM.format(9, 4, 3) + " SLURM_ARRAY_TASK_STEP=2", "4/4"),
        ("auto/4", SLURM.format(1, 4, 1), "1/4"),
        # GitLab from 1
        ("auto", GITLAB.format(1, 3), "1/3"),
        ("auto", GITLAB.format(3, 3), "3/3"),
    ],
)
def test_shard_is_read_from_option_and_job_array(said: str | None, env: str, settled: str | None) -> None:
    assert shard(said, env) == settled


@pytest.mark.parametrize("env", [K8S.format(1), SLURM.format(1, 4, 0), GITLAB.format(1, 3)])
def test_without_shard_scheduler_variables_are_ignored(env: str) -> None:
    assert shard(None, env) is None


@pytest.mark.parametrize(
    ("said", "env", "words"),
    [
        ("0/4", "", "must be from 1/4 to 4/4, not '0/4'"),
        ("5/4", "", "must be from 1/4 to 4/4"),
        ("1/0", "", "must be of at least 1 run"),
        ("auto/0", "", "must be of at least 1 run"),
        ("2", "", "must be I/N, auto or auto/N, not '2'"),
        ("-1/4", "", "must be I/N"),
        ("a/b", "", "must be I/N"),
        ("1/4/2", "", "must be I/N"),
        ("٣/4", "", "must be I/N"),
        ("auto", "", "none of JOB_COMPLETION_INDEX, SLURM_ARRAY_TASK_ID, CI_NODE_INDEX is set"),
        ("auto", "CI_NODE_TOTAL=1", "finds no job array:"),
        ("auto", K8S.format(0), "Kubernetes does not set it"),
        ("auto/4", K8S.format(4), "JOB_COMPLETION_INDEX=4 is not one of the 4 indexes from 0"),
        ("auto", "CI_NODE_INDEX=1", "CI_NODE_TOTAL is not set"),
        ("auto", GITLAB.format(4, 3), "CI_NODE_INDEX=4 is not one of the 3 indexes from 1"),
        ("auto", GITLAB.format(0, 3), "CI_NODE_INDEX=0 is not one of the 3"),
        ("auto", GITLAB.format("x", 3), "CI_NODE_INDEX='x' is not a number"),
        ("auto/4", GITLAB.format(1, 3), "auto/4 contradicts CI_NODE_TOTAL=3"),
        ("auto", SLURM.format(9, 3, 1), "SLURM_ARRAY_TASK_ID=9 is not one of the 3 indexes from 1"),
        ("auto", SLURM.format(2, 3, 1) + " SLURM_ARRAY_TASK_STEP=2", "in steps of 2"),
        ("auto", f"{K8S.format(0)} {GITLAB.format(1, 3)}", "JOB_COMPLETION_INDEX and CI_NODE_INDEX are set"),
    ],
)
def test_unresolvable_shard_is_a_usage_error(said: str, env: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        shard(said, env)
    assert words in str(caught.value)
    assert str(caught.value).startswith("--shard: ")
    assert "--shard" in caught.value.hint or "starts at 1" in caught.value.hint


def test_resumed_run_keeps_its_shard() -> None:
    """`auto` was resolved when the run started; the resume may run without an array or elsewhere in it."""
    began = resolve(
        {"server": "localhost", "shard": "auto"},
        env={"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "3"},
        cwd=Path("/"),
        user_config=None,
    )
    stored = storable(began)
    assert stored["shard"] == "2/3"
    assert shard(None, GITLAB.format(3, 3), stored="2/3") == "2/3"


def test_shard_is_read_from_the_environment_only(tmp_path: Path) -> None:
    assert shard(None, "UPLOADER_SHARD=2/3") == "2/3"
    (tmp_path / "uploader.toml").write_text('shard = "1/2"\n')
    with pytest.raises(UsageError, match="shard"):
        resolve({"server": "localhost"}, env={}, cwd=Path("/"), user_config=tmp_path / "uploader.toml")
