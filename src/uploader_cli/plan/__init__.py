"""`--dry-run`: what an upload would send, and with how many requests."""
