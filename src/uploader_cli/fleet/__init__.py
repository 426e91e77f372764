"""Imports over a Dask cluster: the driver cuts the selection into batches, each a task that sends its files."""
