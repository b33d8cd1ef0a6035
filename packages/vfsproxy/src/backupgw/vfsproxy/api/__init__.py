"""The HTTP edge: operations, their routes and OpenAPI document, requests and answers."""
