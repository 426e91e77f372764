"""The protocols in which files are sent: tus, batches and packs. None knows another; the scheduler chooses."""
