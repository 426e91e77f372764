"""The analysis of uploaded files on the server: its stages, its calls, and its timeline in the view."""
