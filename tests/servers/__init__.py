"""Real servers and clients for the tests: how they are got, started and stopped."""
