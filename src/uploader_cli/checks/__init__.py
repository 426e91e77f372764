"""`uploader doctor` and `uploader smoke`: their checks, and the toolkit that both use."""
