"""What the tests of the core need of the feature."""

TEXTS = {"shard": "2/9"}
VALUES = {"shard": [None, "1/2", "7/11"]}
