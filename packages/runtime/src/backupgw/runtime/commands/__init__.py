"""The commands that every installation has: config, doctor, serve."""
