"""What is read: local files, files at URLs, file objects and standard input. Nothing is sent here."""
