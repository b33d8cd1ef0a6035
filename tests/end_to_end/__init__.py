"""Real restic against a running server."""
