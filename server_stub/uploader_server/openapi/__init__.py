"""`GET /openapi.json`: the HTTP calls of the bundled server, described by OpenAPI 3.1."""
