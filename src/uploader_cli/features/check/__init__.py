"""`uploader check`: compare local files with those on the server."""

from uploader_cli.feature import Feature, FeatureCommand

FEATURE = Feature(
    "check",
    commands=(
        FeatureCommand(
            "check",
            "command:check",
            before="config",
            options="profile from_file from_format null lenient include exclude exclude_from min_size max_size "
            "newer_than follow_links dest jobs retries state_dir json quiet verbose log_file log_level server "
            "max_wait wait_for_server proxy token_file token_command header ca_bundle client_cert insecure category",
        ),
    ),
    events="events:EVENTS",
)
