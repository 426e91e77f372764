"""The features, in order: each is the folder of that name, and is gone with it and its name here."""

FEATURES: tuple[str, ...] = ("page", "metrics")
