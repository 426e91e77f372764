"""The speed of the client and the bundled server, beside other clients: `python -m benchmarks --list`."""
