"""Benchmarks: backupgw beside the servers its users come from, on one machine, in one run."""
