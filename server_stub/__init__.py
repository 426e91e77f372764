"""The bundled upload server: the same wire contract as the reference backend, plus faults on demand."""
