"""[rest.quota]: limits of server, users and repositories, as clients and operators meet them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from tests.conftest import SOAK
from tests.restserver.client import Client
from tests.restserver.test_rules import Site, until
from tests.restserver.test_start import NamedPlace
from tests.servers.gateway import Gateway

from backupgw.kvstore.ledger import Amount, Limit, SQLiteLedger
from backupgw.restserver.limits import Limits, all_accounts

KIB = 1 << 10
QUOTA = """
[rest.quota.server]
bytes = "1000 KiB"
[[rest.quota.user]]
who = "bob"
objects = 4
[[rest.quota.user]]
who = "*"
bytes = "500 KiB"
soft_bytes = "300 KiB"
[[rest.quota.repository]]
on = ["*/small"]
bytes = 102400
"""


def site(folder: Path, quota: str = QUOTA, *flags: str) -> Site:
    folder.mkdir(exist_ok=True)
    return Site(folder, quota, *flags)


def save(client: Client, repo: str, size: int, kind: str = "data") -> tuple[int, str, str]:
    content = os.urandom(size)
    path = f"/{repo}/{kind}/{hashlib.sha256(content).hexdigest()}"
    answer = client.call("POST", path, content)
    return answer.status, answer.text, path


def stored(folder: Path) -> dict[str, Amount]:
    """What the accounts must say, by what is on the disk."""
    found: dict[str, Amount] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(".backupgw") and path.parent.name != "locks":
            for account in all_accounts(name):
                found[account] = found.get(account, Amount()) + Amount(path.stat().st_size, 1)
    return found


def accounts(folder: Path) -> dict[str, Amount]:
    """What the accounts of a server that has stopped say; nothing may be reserved any more."""
    with SQLiteLedger(str(folder / ".backupgw-ledger/ledger.sqlite3")) as ledger:
        usages = list(ledger.usages())
    assert {usage.reserved for usage in usages} == {Amount()}
    return {usage.scope: usage.used for usage in usages if usage.used}


def test_a_refusal_says_which_limit(tmp_path: Path) -> None:
    with site(tmp_path) as running:
        ann, bob, ray = map(running.user, ("ann", "bob", "ray"))
        assert save(ann, "ann/small", 90 * KIB)[0] == 200
        status, text, _ = save(ann, "ann/small", 20 * KIB)
        assert (status, text.count("\n")) == (507, 1)
        assert "repository:ann/small: the limit of 102400 bytes" in text
        assert save(ann, "ann/small", 90 * KIB, "locks")[0] == 200, "a lock was refused"

        assert save(ann, "ann/large", 400 * KIB)[0] == 200
        assert "user:ann: the limit of 512000 bytes" in save(ann, "ann/large", 20 * KIB)[1]
        # The repository decides, not who uploads.
        assert "user:ann: the limit" in save(ray, "ann/large", 20 * KIB)[1]

        paths = [save(bob, f"bob/{number}", 10)[2] for number in range(4)]
        assert "user:bob: the limit of 4 objects" in save(bob, "bob/4", 10)[1]
        assert bob.status("DELETE", paths[0]) == 200
        assert save(bob, "bob/4", 10)[0] == 200

        assert save(ray, "ray", 490 * KIB)[0] == 200
        assert "server: the limit of 1024000 bytes" in save(bob, "x", 30 * KIB)[1]
    assert accounts(tmp_path / "data") == stored(tmp_path / "data")


def vanish(server: Gateway, path: str, size: int) -> None:
    """Send half a body and hang up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        # The server may have refused it before the half was sent.
        with contextlib.suppress(OSError):
            connection.sendall(head.encode() + bytes(size // 2))


ROUNDS = pytest.param(20, marks=pytest.mark.soak) if SOAK else 2


@pytest.mark.parametrize("rounds", [ROUNDS])
def test_no_limit_is_ever_passed(tmp_path: Path, rounds: int) -> None:
    """32 uploads at once to 2 workers, some given up half-way: all accounts are exact."""
    quota = """
        [rest]
        no_auth = true
        [rest.quota.server]
        bytes = "6000 KiB"
        [[rest.quota.user]]
        who = "*"
        bytes = "2500 KiB"
        [[rest.quota.repository]]
        on = "*/small"
        objects = 3
    """
    folder = tmp_path / "data"
    limits = {"server": 6000 * KIB, "user:": 2500 * KIB}
    config = tmp_path / "backupgw.toml"
    config.write_text(quota)
    with Gateway(folder, flags=["--config", str(config), "--workers", "2"]) as server:
        answers: list[tuple[int, str]] = []

        def upload(size: int, repo: str, gone: bool) -> None:
            if gone:
                vanish(server, f"/{repo}/data/{os.urandom(32).hex()}", size)
            else:
                status, _, path = save(Client(server), repo, size)
                answers.append((status, path))

        for number in range(rounds):
            dice = random.Random(number)
            answers.clear()
            plans = [
                (
                    dice.choice((300, 400, 500)) * KIB + dice.randrange(KIB),
                    f"{dice.choice(('ann', 'bob', 'ray'))}/{dice.choice(('small', 'large'))}",
                    dice.random() < 0.1,
                )
                for _ in range(32)
            ]
            threads = [threading.Thread(target=upload, args=plan) for plan in plans]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert {status for status, _ in answers} == {200, 507}
            held = stored(folder)
            for account, amount in held.items():
                limit = limits.get("user:" if account.startswith("user:") else account)
                assert limit is None or amount.bytes <= limit, (account, amount)
                assert not account.endswith("small") or amount.objects <= 3
            assert held["server"].bytes > 3000 * KIB, "refused what had room"
            for status, path in answers:
                if status == 200:
                    assert Client(server).status("DELETE", path) == 200
            assert not stored(folder)
        # What was given up half-way is given back: all of it has room again.
        for user in ("ann", "bob"):
            for _ in range(5):
                assert save(Client(server), f"{user}/large", 500 * KIB)[0] == 200
    assert accounts(folder) == stored(folder)


def test_a_restart_counts_only_what_it_cannot_know(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    foreign = folder / "ann/small/data/ab" / f"ab{'0' * 62}"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(bytes(60 * KIB))
    running = site(tmp_path)
    with running:
        # Nobody had counted yet.
        assert save(running.user("ann"), "ann/small", 50 * KIB)[0] == 507
        assert save(running.user("ann"), "ann/small", 30 * KIB)[0] == 200
        assert any("counting what" in line for line in running.server.process.lines)
        running.server.process.kill()
    foreign.unlink()
    with running:
        # Killed, it still knows, and so does not look: the file that is gone counts as before.
        assert not any("counting what" in line for line in running.server.process.lines)
        assert save(running.user("ann"), "ann/small", 50 * KIB)[0] == 507
    running.write("")
    with running:
        assert save(running.user("ann"), "ann/small", 1000 * KIB)[0] == 200
    running.write(QUOTA.replace("102400", "2_000_000").replace("500 KiB", "2000 KiB"))
    with running:
        # Without limits nobody counted.
        assert any("counting what" in line for line in running.server.process.lines)
    assert accounts(folder) == stored(folder)


def test_a_gateway_without_limits_takes_none_away_from_another_that_runs(tmp_path: Path) -> None:
    running = site(tmp_path)
    with running:
        assert save(running.user("ann"), "ann/small", 90 * KIB)[0] == 200
        (tmp_path / "other.toml").write_text(f'[state]\nfolder = "{tmp_path}/other"\n')
        flags = ["--config", str(tmp_path / "other.toml")]
        with Gateway(tmp_path / "data", flags=flags) as other:
            assert save(Client(other), "ann/small", 30 * KIB)[0] == 200
        assert save(running.user("ann"), "ann/small", 20 * KIB)[0] == 507
    with running:
        # What the other has written counts from the next start on.
        assert any("counting what" in line for line in running.server.process.lines)
    assert accounts(tmp_path / "data") == stored(tmp_path / "data")


def test_who_comes_back_to_a_ledger_counts_what_it_has_missed(tmp_path: Path) -> None:
    """As after a state that went to another database and back."""
    running = site(tmp_path)
    with running:
        assert save(running.user("ann"), "ann/small", 30 * KIB)[0] == 200
    for _ in range(2):
        running.write(f'[rest]\nledger = "{tmp_path}/other.sqlite3"\n{QUOTA}')
        with running:
            assert save(running.user("ann"), "ann/small", 15 * KIB)[0] == 200
        running.write(QUOTA)
        with running:
            assert save(running.user("ann"), "ann/small", 15 * KIB)[0] == 200
    assert accounts(tmp_path / "data") == stored(tmp_path / "data")
    with running:  # 90 of 100 KiB
        assert save(running.user("ann"), "ann/small", 15 * KIB)[0] == 507
        # Started twice in a row with the same, it knows.
        assert not any("corrected" in line for line in running.server.process.lines)
    assert accounts(tmp_path / "data") == stored(tmp_path / "data")


def test_count_at_start_is_for_places_where_others_write(tmp_path: Path) -> None:
    running = site(tmp_path, f"{QUOTA}\n[rest.quota]\ncount_at_start = true\n")
    with running:
        assert save(running.user("ann"), "ann/small", 10 * KIB)[0] == 200
    foreign = tmp_path / "data/ann/small/data/ab" / f"ab{'0' * 62}"
    foreign.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_bytes(bytes(80 * KIB))
    with running:
        assert save(running.user("ann"), "ann/small", 20 * KIB)[0] == 507
    assert accounts(tmp_path / "data") == stored(tmp_path / "data")


def test_limits_change_without_a_restart(tmp_path: Path) -> None:
    running = site(tmp_path, QUOTA, "--workers", "2")
    with running:
        ann = running.user("ann")
        assert save(ann, "ann/small", 90 * KIB)[0] == 200
        assert {save(ann, "ann/small", 20 * KIB)[0] for _ in range(6)} == {507}
        running.write(QUOTA.replace("102400", "409600"))
        running.reload("rules in effect")
        until(lambda: save(ann, "ann/small", 1 * KIB)[0] == 200, "the limit was not raised")
        assert {save(ann, "ann/small", 20 * KIB)[0] for _ in range(6)} == {200}
        running.write(QUOTA)
        running.reload("rules in effect")
        until(lambda: save(ann, "ann/small", 1)[0] == 507, "the limit was not lowered")
        running.write(QUOTA.replace('"1000 KiB"', '"100 TiBB"'))
        running.reload("everything stays as it was")
        assert save(ann, "ann/small", 1)[0] == 507
    assert accounts(tmp_path / "data") == stored(tmp_path / "data")


def test_a_limit_that_needs_a_restart_is_said_to(tmp_path: Path) -> None:
    """Else an operator would believe in a limit that is not there."""
    running = site(tmp_path, "")
    with running:
        running.write(QUOTA)
        running.reload("the limits stay as they were: the first limit of all needs a restart")
        assert save(running.user("ann"), "ann/small", 200 * KIB)[0] == 200
    running.write("[rest]\nmax_size = 100_000_000\n")
    with running:
        running.write(QUOTA)
        running.reload("the first limit of users or repositories needs a restart")
        assert save(running.user("ann"), "ann/small", 200 * KIB)[0] == 200


def test_reaching_a_limit_is_told_once_and_so_is_leaving_it(tmp_path: Path) -> None:
    running = site(tmp_path)
    with running:

        def told(kind: str) -> list[str]:
            return [
                line
                for line in running.server.process.lines
                if kind in line and "repository:ann/small" in line
            ]

        ann = running.user("ann")
        _, _, first = save(ann, "ann/small", 82 * KIB)
        until(lambda: len(told("quota.reached")) == 1, "80 % was not told")
        save(ann, "ann/small", 14 * KIB)
        until(lambda: len(told("quota.reached")) == 2, "95 % was not told")
        assert {json.loads(line)["level"] for line in told("quota.reached")} == {"warning"}
        for _ in range(5):
            assert save(ann, "ann/small", 10 * KIB)[0] == 507
        until(lambda: len(told("quota.reached")) == 3, "that it is full was not told")
        assert ann.status("DELETE", first) == 200
        until(lambda: len(told("quota.cleared")) == 2, "that there is room was not told")
    assert len(told("quota.reached")) == 3


def test_a_limit_passed_already_is_told_at_start(tmp_path: Path) -> None:
    stored_before = tmp_path / "data/ann/small/data/ab" / f"ab{'0' * 62}"
    stored_before.parent.mkdir(parents=True)
    stored_before.write_bytes(bytes(200 * KIB))
    with site(tmp_path) as running:
        told = [line for line in running.server.process.lines if "quota.reached" in line]
        assert len([line for line in told if "repository:ann/small" in line]) == 3
        assert save(running.user("ann"), "ann/small", 1)[0] == 507


def test_what_lies_in_the_trash_counts_and_locks_do_not_go_there(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    config = tmp_path / "backupgw.toml"
    config.write_text(
        f'[places.default]\nurl = "file://{folder}"\n'
        'layers = [{ layer = "trash", keep = "7d" }]\n'
        '[[rest.quota.user]]\nwho = "*"\nbytes = "100 kB"\n'
    )
    with NamedPlace(folder, flags=["--config", str(config)]) as server:
        client = Client(server)
        status, _, path = save(client, "ann/laptop", 60_000)
        assert (status, client.status("DELETE", path)) == (200, 200)
        assert save(client, "ann/laptop", 60_000)[0] == 507
        for _ in range(3):
            status, _, lock = save(client, "ann/laptop", 60_000, "locks")
            assert (status, client.status("DELETE", lock)) == (200, 200)
        assert save(client, "ann/laptop", 30_000)[0] == 200
    assert accounts(folder)["user:ann"] == Amount(90_000, 2)


@pytest.mark.parametrize(
    ("quota", "said"),
    [
        ('[rest.quota.server]\nbytes = "1 XB"', "bytes"),
        ("[rest.quota.server]\nbytes = 0", "more than 0"),
        ("[rest.quota.server]\nbytes = -5", "more than 0"),
        ("[rest.quota.server]\nbytes = 10\nsoft_bytes = 20", "soft limit above the hard one"),
        ('[[rest.quota.user]]\nwho = ["@ops"]\nbytes = 5', "not a group's"),
        ("[[rest.quota.user]]\nbytes = 5", "who"),
        ('[[rest.quota.repository]]\nwho = "x"\nbytes = 5', "who"),
        ("[rest]\nmax_size = 5\n[rest.quota.server]\nbytes = 5", "keep one"),
    ],
)
def test_a_wrong_limit_is_named(tmp_path: Path, quota: str, said: str) -> None:
    config = tmp_path / "backupgw.toml"
    config.write_text(f"{quota}\n")
    checked = subprocess.run(
        [Gateway.program()[0], "config", "check", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 1, checked.stdout
    assert said in checked.stderr
    assert "Traceback" not in checked.stderr


def test_the_first_pattern_that_fits_decides() -> None:
    limits = Limits(
        users=((("ann", "b*"), Limit(1)), (("*",), Limit(2))),
        repositories=((("*/small",), Limit(3)), (("ann/**",), Limit(4))),
    )
    assert [limits.of(f"user:{name}").hard_bytes for name in ("ann", "bob", "cid")] == [1, 1, 2]
    for path, hard in (("ann/small", 3), ("ann/x", 4), ("ann", 4), ("bob/x", None), ("/", None)):
        assert limits.of(f"repository:{path}").hard_bytes == hard, path
    assert limits.of("server") == Limit()
    assert all_accounts("ann/laptop/data/00/abc") == ("server", "user:ann", "repository:ann/laptop")
    assert all_accounts("config") == ("server", "repository:/")
    assert all_accounts("readme") == ("server",)
