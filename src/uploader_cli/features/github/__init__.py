"""The page of a job of GitHub Actions: annotations of failures, and the summary of the step."""

from uploader_cli.feature import Feature

FEATURE = Feature(
    "github",
    uses=("reports",),
    variables=("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"),
    page="page:GithubPage",
)
