"""`--dry-run`: what an upload would send, and where to."""

from uploader_cli.feature import Feature, FeatureOption

FEATURE = Feature(
    "plan",
    options=(
        FeatureOption(
            "dry_run",
            default=False,
            text="-n  Print the plan with the destinations and send nothing.",
            section="What to send",
            commands="upload import",
            before="protocol",
        ),
    ),
    instead="dry_run:dry_run",
    needs_end="a plan is of what would be sent now",
    events="events:PLANNED",
)
