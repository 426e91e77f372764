"""Report formats for readers and other programs; `uploader report` draws and combines reports."""

from uploader_cli.feature import Feature, FeatureCommand, FeatureFormat

FEATURE = Feature(
    "reports",
    formats=(
        FeatureFormat("junit", ".xml", "junit:as_junit", label="JUnit"),
        FeatureFormat("markdown", ".md", "markdown:as_markdown"),
        FeatureFormat("html", ".html", "html:as_html"),
        FeatureFormat("sha256", ".sha256", "digests:as_sha256", digests=True),
    ),
    commands=(FeatureCommand("report", "command:report", before="config", options="json quiet"),),
)
