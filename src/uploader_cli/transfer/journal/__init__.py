"""The durable journal of uploads in progress and stored files.

One SQLite file in WAL mode serves all runs and processes. A commit survives the death of the process; a power cut may
lose the last commits. It contains no credentials, but upload URLs, which may allow writing: its mode is 0600.
"""
