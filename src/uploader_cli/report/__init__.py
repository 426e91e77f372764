"""The files of a run: reports, combined reports, the list for a retry, and metrics."""
