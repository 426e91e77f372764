"""The command `check`: compare local files with those on the server."""
