"""The HTTP host: what stands between a socket and a service's ASGI application."""
