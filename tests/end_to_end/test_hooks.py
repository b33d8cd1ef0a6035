"""Hooks on events, told by the gateway while a real restic works."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from backupgw.runtime.events.signature import key_of, verify
from tests.servers import peers
from tests.servers.gateway import Gateway
from tests.servers.restic import Restic
from tests.servers.webhook import Delivery, WebhookReceiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def wait_for_lines(path: Path, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 60
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return [json.loads(line) for line in lines]
        assert time.monotonic() < deadline, f"{len(lines)} of {count} events came: {lines}"


def signed_right(delivery: Delivery) -> bool:
    headers = delivery.headers
    return verify(
        key_of(SECRET),
        headers["webhook-id"],
        headers["webhook-timestamp"],
        headers["webhook-signature"],
        delivery.body,
        time.time(),
    )


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_backup_is_told(small_tree: Path, repositories: Path, tmp_path: Path) -> None:
    """A command and a webhook learn of it, each once, though the webhook's server fails twice and
    a third hook hangs; restic notices nothing of any of them."""
    told = tmp_path / "told"
    with WebhookReceiver([500, 503, 204]) as receiver:
        config = tmp_path / "backupgw.toml"
        config.write_text(f"""
            [state]
            folder = "{tmp_path / "state"}"
            [events]
            gateway = "nas1"
            [[events.hook]]
            name = "command"
            command = ["/bin/sh", "-c", "cat >> {told}"]
            types = ["repository.*", "snapshot.*"]
            [[events.hook]]
            name = "chat"
            url = "{receiver.url}/T0KEN"
            secret = "{SECRET}"
            types = "snapshot.written"
            where = {{ repository = "ann/*" }}
            [[events.hook]]
            name = "stuck"
            command = ["sleep", "600"]
            time_limit = 600
        """)
        flags = ["--config", str(config), "--workers", "2", "--private-repos"]
        with Gateway(repositories, users={"ann": "a"}, flags=flags) as server:
            restic = Restic(
                peers.get(peers.RESTIC_NEW),
                server.repository("ann/laptop", user="ann"),
                tmp_path / "home",
            )
            restic.init(repositories / "ann/laptop")
            restic.run("backup", ".", directory=small_tree)
            (snapshot,) = restic.snapshots()
            restic.run("forget", snapshot)

            events = wait_for_lines(told, 3)
            attempts = [receiver.next() for _ in range(3)]
    assert [event["type"] for event in events] == [
        "repository.created",
        "snapshot.written",
        "snapshot.deleted",
    ]
    assert {event["gateway"] for event in events} == {"nas1"}
    common = {"place": "path", "repository": "ann/laptop", "user": "ann"}
    assert events[0]["data"] == common
    size = events[1]["data"].pop("size")
    assert size > 100
    assert events[1]["data"] == events[2]["data"] == {**common, "snapshot": snapshot}

    assert [json.loads(attempt.body)["id"] for attempt in attempts] == [events[1]["id"]] * 3
    assert all(attempt.path == "/T0KEN" and signed_right(attempt) for attempt in attempts)
    assert receiver.deliveries.empty(), "it was told again after it had accepted"
    assert not any("T0KEN" in line or SECRET in line for line in server.process.lines)
