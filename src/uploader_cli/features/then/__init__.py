"""`--then`: files that the server has are moved or deleted here."""

from uploader_cli.feature import Feature, FeatureCode, FeatureOption

FEATURE = Feature(
    "then",
    options=(
        FeatureOption(
            "then",
            default=None,
            text="ACTION  Once the server has the same bytes: keep a file here, move:DIR or delete. [default: keep]",
            section="What to send",
            commands="upload",
            before="protocol",
            parse="options:removal",
            config="user",
            stored=True,
            excludes=(("follow_links", "what a link points to is never moved or deleted"),),
        ),
        FeatureOption(
            "then_unverified",
            default=False,
            text="With --then: also act if the server gives neither the digest nor the bytes of a file.",
            section="What to send",
            commands="upload",
            before="protocol",
            config="user",
            stored=True,
        ),
    ),
    consumes=True,
    checks_selection="selected:check",
    plans="stations:planned",
    directory=".uploader-aside",
    restores="removal:restore",
    codes=(
        FeatureCode(
            "kept",
            "The file is stored, and was not moved or deleted here: correct the reason above, and run again.",
            is_stored=True,
        ),
        FeatureCode(
            "unverifiable",
            "It can't be compared with what the server has: see --then-unverified.",
            is_stored=True,
            is_usage=True,
        ),
    ),
    fields="fields:EVENT_FIELDS",
    fields_of_missing="fields:OF_MISSING",
    counts="removed",
    words="words",
    exports=(("Removed", "fields:Removed"),),
    steps=(("stored", "stations:Proof"), ("last", "stations:Removing")),
)
