"""The composition root: assembles everything below into the functions that the commands and the library call."""
