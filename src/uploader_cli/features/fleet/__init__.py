"""`uploader import`: worker processes of a Dask cluster send the files; the driver cuts them into tasks."""

from uploader_cli.feature import Feature, FeatureCommand, FeatureOption

FEATURE = Feature(
    "fleet",
    options=(
        FeatureOption(
            "on",
            default=None,
            text="local:N|URL  Run the import on N processes here, or on the Dask cluster dask://HOST:PORT.",
            section="How to send",
            commands="import",
            before="protocol",
            parse="options:place",
            type=str | None,
            config="none",
            stored=True,
        ),
        FeatureOption(
            "cluster_timeout",
            default=60.0,
            text="TIME  With --on: time to wait for an answer of the Dask scheduler.",
            section="How to send",
            commands="import",
            before="protocol",
            parse="options:seconds",
            type=float,
        ),
        FeatureOption(
            "task_timeout",
            default=300.0,
            text="TIME  With --on: give the task of a worker without progress to another one after this time.",
            section="How to send",
            commands="import",
            before="protocol",
            parse="options:seconds",
            type=float,
        ),
    ),
    commands=(
        FeatureCommand(
            "import",
            "command:import_",
            before="resume",
            options="profile from_file from_format null lenient include exclude exclude_from min_size max_size "
            "newer_than follow_links check_first dest resend skip_existing protocol metadata jobs chunk_size "
            "checksum pack limit_rate retries finish_timeout deadline fail_fast resend_unknown verify digest resume "
            "state_dir json progress quiet verbose log_file log_level report failed_to links server tus_endpoint "
            "max_wait wait_for_server stall warn_latency warn_error_rate proxy token_file token_command header "
            "ca_bundle client_cert insecure category",
        ),
    ),
    sender="driver:Driver",
    extra="dask",
    warnings=("workers",),
    view="view:WORKERS_VIEW",
)
