"""Tests of backupgw.runtime."""
