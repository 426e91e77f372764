"""The protocols in which files are sent, as pure code: tus, batches and packs. The scheduler chooses among them."""
