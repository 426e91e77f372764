"""`GET /openapi.json`: the OpenAPI 3.1 description of the bundled server's HTTP calls."""
