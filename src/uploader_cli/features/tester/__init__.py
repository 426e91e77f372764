"""`uploader judge`: what a client of resumable uploads does in situations that a server of its own plays."""

from uploader_cli.feature import Feature, FeatureCommand

FEATURE = Feature(
    "tester",
    uses=("checks", "reports", "smoke"),
    commands=(FeatureCommand("judge", "command:judge", before="config", options="json quiet verbose"),),
)
