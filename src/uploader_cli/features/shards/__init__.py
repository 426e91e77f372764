"""`--shard`: several runs share a selection; `uploader report merge` combines their reports."""

from uploader_cli.feature import Feature, FeatureAction, FeatureOption

FEATURE = Feature(
    "shards",
    uses=("reports",),
    options=(
        FeatureOption(
            "shard",
            default=None,
            text="I/N|auto  Send only part I of N; auto reads it from the job array.",
            section="What to send",
            commands="upload import check",
            before="follow_links",
            parse="option:parse",
            resolve="option:resolved",
            type=str | None,
            config="none",
            stored=True,
        ),
    ),
    part="part:Shard",
    head="head",
    actions=(FeatureAction("merge", "combine several reports", "command:merge"),),
)
