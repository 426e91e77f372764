"""The bundled upload server: the same protocol as the reference backend, plus faults on demand."""
