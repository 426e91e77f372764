"""The files of a run: reports in four formats, the list for a retry, and combined reports."""
