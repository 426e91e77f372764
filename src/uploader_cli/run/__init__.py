"""The composition root: what the commands and the library call. Everything below is put together here and only here."""
