"""What is left of a run in files: reports in four formats, the list of what is to be sent again, and reports joined."""
