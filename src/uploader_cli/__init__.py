"""Upload files in sessions, follow the server's progress, lose nothing when the socket drops."""
