"""What the tests of the core need of the feature."""

TEXTS = {"preset": "tusd"}
VALUES = {"preset": [None]}
