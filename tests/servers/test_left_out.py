"""A bare machine leaves tests out and says why; CI lets nothing be left out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from . import peers

BARE = """
import pathlib, sys, pytest
from tests.servers import peers
peers.VERSIONS = pathlib.Path("/nonexistent/versions.json")
sys.exit(pytest.main(sys.argv[1:]))
"""
"""Runs pytest as where nothing was installed."""

NEEDS_PEERS = ["tests/end_to_end/test_access.py", "-k", "untrusted", "-p", "no:cacheprovider"]
NEEDS_SOAK = ["tests/end_to_end/test_cycle.py", "--collect-only", "-q", "-p", "no:cacheprovider"]


def run(*arguments: str, script: Sequence[str] = ("-m", "pytest"), **environment: str) -> str:
    """Run pytest in a process of its own; its exit status comes as the first line."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"CI", "BACKUPGW_SOAK"}}
    done = subprocess.run(
        [sys.executable, *script, *arguments],
        cwd=peers.ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def test_missing_peers_are_named() -> None:
    printed = run(*NEEDS_PEERS, script=("-c", BARE))
    assert printed.startswith("0\n")
    assert "left out: restic-new is missing: run `make peers`" in printed
    assert "1 skipped" in printed


def test_missing_peers_fail_in_ci() -> None:
    printed = run(*NEEDS_PEERS, script=("-c", BARE), CI="true")
    assert printed.startswith("1\n")
    assert "nothing may be left out with CI=true: restic-new is missing" in printed
    assert "skipped" not in printed


def test_a_bare_machine_can_be_played() -> None:
    printed = run(*NEEDS_PEERS, "--peer-less")
    assert printed.startswith("0\n")
    assert "left out: restic-new, because of --peer-less" in printed


def test_ci_refuses_to_play_a_bare_machine() -> None:
    printed = run(*NEEDS_PEERS, "--peer-less", CI="true")
    assert printed.startswith("4\n")
    assert "--peer-less is refused" in printed


@pytest.mark.parametrize(("soak", "there"), [("0", False), ("1", True)])
def test_soak_tests_exist_on_request(soak: str, there: bool) -> None:
    printed = run(*NEEDS_SOAK, BACKUPGW_SOAK=soak)
    assert ("restic-new-unix-private" in printed) == there
    assert ("deselected" in printed) == (not there)
    assert "skipped" not in printed
