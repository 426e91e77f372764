"""The bundled upload server: the protocol of the reference backend, with fault injection."""
