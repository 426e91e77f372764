"""`--then`: files that the server has are moved or deleted here."""

from uploader_cli.feature import Feature, FeatureOption

FEATURE = Feature(
    "then",
    options=(
        FeatureOption(
            "then",
            default=None,
            text="ACTION  Once the server has the same bytes: keep a file here, move:DIR or delete. [default: keep]",
            section="What to send",
            commands="upload",
            before="dry_run",
            parse="options:removal",
            config="user",
            stored=True,
        ),
        FeatureOption(
            "then_unverified",
            default=False,
            text="With --then: also act if the server gives neither the digest nor the bytes of a file.",
            section="What to send",
            commands="upload",
            before="dry_run",
            config="user",
            stored=True,
        ),
    ),
    consumes=True,
    checks_selection="selected:check",
    plans="stages:planned",
    steps=(("stored", "stages:Proof"), ("last", "stages:Removing")),
)
