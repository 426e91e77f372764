"""Imports over a Dask cluster: the driver cuts the selection into tasks, which send their files."""
