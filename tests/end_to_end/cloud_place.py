"""What restic must live through on a place of others, whichever it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.end_to_end import tree
from tests.end_to_end.gateway_on_place import sound
from tests.servers.double import Call, Double, Fault, Faults
from tests.servers.restic import Restic

KINDS = (Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.RESET, Fault.LOST, Fault.CUT)

_REVOKED_WITHIN = 60


def life_on_a_service_that_fails(
    double: Double, client: Restic, source: Path, target: Path, *, rate: float
) -> None:
    """init, a backup while requests fail and the service is killed, check, a second backup, prune,
    and each time the same tree again.

    Args:
        rate: share of the requests that fail during the first backup.
        target: where the tree is restored.
    """
    client.init_there()
    double.faults = Faults(rate=rate, kinds=KINDS, seed=3)
    stop = threading.Event()

    def interrupt() -> None:
        while not stop.wait(1.5):
            double.restart()

    saboteur = threading.Thread(target=interrupt)
    saboteur.start()
    try:
        client.run("backup", ".", directory=source)
    finally:
        stop.set()
        saboteur.join(60)
    double.faults = Faults()
    sound(client, tree.describe(source), target)
    (source / "more").write_bytes(bytes(range(256)) * 5000)
    client.run("backup", ".", directory=source)
    client.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    sound(client, tree.describe(source), target)


def withdrawal_in_mid_backup(
    double: Double,
    client: Restic,
    source: Path,
    set_withdrawn: Callable[[bool], None],
    is_upload: Callable[[Call], bool],
) -> None:
    """The credential is withdrawn while a backup runs: restic says so and ends; and when it is
    given again, nothing is damaged.

    Args:
        set_withdrawn: withdraws the credential, or gives it again.
        is_upload: whether a request shows that the backup has begun to store.
    """
    client.init_there()
    client.run("backup", ".", directory=source)
    (source / "more").write_bytes(b"".join(n.to_bytes(4, "big") for n in range(3_000_000)))
    double.calls.clear()

    def withdraw() -> None:
        deadline = time.monotonic() + _REVOKED_WITHIN
        while time.monotonic() < deadline and not double.calls.count(is_upload):
            time.sleep(0.005)
        with double.holding():  # or the backup ends before a service's own command has done it
            set_withdrawn(True)

    withdrawing = threading.Thread(target=withdraw)
    withdrawing.start()
    done = client.attempt("backup", "--retry-lock", "0s", ".", directory=source)
    withdrawing.join()
    assert done.returncode != 0
    assert "403" in done.stderr, f"restic is told why: {done.stderr[-2000:]}"
    set_withdrawn(False)
    client.run("unlock")
    client.run("check", "--read-data")
