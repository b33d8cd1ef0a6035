"""Rules and tokens as clients of restic's protocol meet them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.restserver.client import Client
from tests.servers.gateway import Gateway

USERS = {"ann": "a", "bob": "b", "ray": "r", "wim": "w", "fay": "f"}
LEVELS = """
[[auth.rule]]
who = ["ray"]
allow = ["read"]
on = ["repository:*/team"]

[[auth.rule]]
who = ["wim"]
allow = ["write-only"]
on = ["repository:*/team"]

[[auth.rule]]
who = ["ann"]
allow = ["append"]
on = ["repository:*/team"]

[[auth.rule]]
who = ["fay"]
allow = ["full"]
on = ["repository:*/**", "place:*"]
"""


class Site:
    """A server with users and a settings file that can be changed while it runs."""

    def __init__(self, folder: Path, rules: str, *flags: str, more: str = "") -> None:
        self.config = folder / "backupgw.toml"
        self.state = folder / "state"
        self._more = f'[state]\nfolder = "{self.state}"\n{more}'
        self.write(rules)
        self.server = Gateway(
            folder / "data", users=USERS, flags=["--config", str(self.config), *flags]
        )

    def write(self, rules: str) -> None:
        self.config.write_text(f"{self._more}\n{rules}")

    def reload(self, says: str) -> None:
        """Send SIGHUP and wait for what every worker has to say."""
        seen = len([line for line in self.server.process.lines if says in line])
        self.server.process.process.send_signal(signal.SIGHUP)
        until(
            lambda: len([line for line in self.server.process.lines if says in line]) > seen,
            f"the log never said {says!r}",
        )

    def user(self, name: str) -> Client:
        return Client(self.server, name, USERS[name])

    def token(self, *arguments: str) -> str:
        """Make a token with the command and return it."""
        program = Gateway.program()[0]
        return subprocess.run(
            [program, "token", "create", "--config", str(self.config), *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.strip()

    def __enter__(self) -> Site:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()


def until(holds: Callable[[], bool], message: str) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, message


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, LEVELS)


def test_each_level_does_what_it_says_and_no_more(site: Site) -> None:
    with site:
        fay = site.user("fay")
        assert fay.status("POST", "/team/?create=true") == 200
        assert fay.status("POST", "/team/config", b"config") == 200
        _, data = fay.save("team")
        _, snapshot = fay.save("team", "snapshots")

        def may(name: str) -> list[str]:
            client = site.user(name)
            added, path = client.save("team")
            locked, lock = client.save("team", "locks")
            done = {
                "open": client.status("GET", snapshot),
                "config": client.status("HEAD", "/team/config"),
                "list": client.status("GET", "/team/data/"),
                "size": client.status("HEAD", data),
                "load": client.status("GET", data),
                "add": added,
                "lock": locked,
                "unlock": client.status("DELETE", lock),
                "create": client.status("POST", "/team/?create=true"),
                "delete": client.status("DELETE", path),
            }
            assert set(done.values()) <= {200, 403}, done
            return [verb for verb, status in done.items() if status == 200]

        reads = ["open", "config", "list", "size"]
        locks = ["lock", "unlock"]
        assert may("ray") == [*reads, "load", *locks]
        assert may("wim") == [*reads, "add", *locks, "create"]
        assert may("ann") == [*reads, "load", "add", *locks, "create"]
        assert may("fay") == [*reads, "load", "add", *locks, "create", "delete"]
        assert may("bob") == []
        for name in ("ray", "wim", "ann", "bob"):
            # Elsewhere nobody but fay has anything, and history stays.
            assert site.user(name).status("GET", "/other/config") == 403
            assert site.user(name).status("DELETE", snapshot) == 403
        refused = site.user("ann").call("DELETE", data)
        assert "ann is not allowed to delete in repository:path/team" in refused.text
        assert fay.status("GET", data) == 200


def test_flags_and_rules_narrow_each_other(tmp_path: Path) -> None:
    """A rule that allows everything neither opens others' repositories nor lets history go."""
    rules = '[[auth.rule]]\nwho = ["*"]\nallow = ["full"]\non = ["*:**"]\n'
    with Site(tmp_path, rules, "--append-only", "--private-repos") as site:
        ann = site.user("ann")
        status, path = ann.save("ann/laptop")
        assert status == 200
        assert ann.status("DELETE", path) == 403
        for _ in range(5):
            assert site.user("bob").status("GET", path) == 401
        said = "refused: user 'bob' from 127.0.0.1, repository 'ann/laptop': this repository"
        until(lambda: any(said in line for line in site.server.process.lines), "no line tells")
        assert sum(said in line for line in site.server.process.lines) == 1, "one for all five"
    (tmp_path / "second").mkdir()
    # Reading the file again must not forget what the flags said: --path names the place.
    rules = '[[auth.rule]]\nwho = ["*"]\nallow = ["read"]\non = ["repository:path/**"]\n'
    with Site(tmp_path / "second", rules, "--private-repos") as site:
        assert site.user("ann").save("ann/laptop")[0] == 403
        site.write(rules.replace("read", "append"))
        site.reload("1 rules in effect")
        assert site.user("ann").save("ann/laptop")[0] == 200
        assert site.user("bob").save("ann/laptop")[0] == 401


def test_rules_change_without_a_restart(tmp_path: Path) -> None:
    with Site(tmp_path, LEVELS, "--workers", "2") as site:
        _, path = site.user("fay").save("team")
        bob = site.user("bob")
        assert [bob.status("GET", path) for _ in range(8)] == [403] * 8

        site.write(LEVELS.replace('who = ["ray"]', 'who = ["ray", "bob"]'))
        site.reload("4 rules in effect")
        # Both workers read it, in their own time.
        until(lambda: {bob.status("GET", path) for _ in range(8)} == {200}, "bob is not let in")

        site.write(LEVELS.replace("write-only", "write-onyl"))
        site.reload("everything stays as it was")
        assert {bob.status("GET", path) for _ in range(8)} == {200}
        assert any("write-onyl" in line for line in site.server.process.lines)
        assert site.user("ray").save("team")[0] == 403, "a mistake opened everything up"


def test_a_worker_that_replaces_a_dead_one_has_the_rules_of_now(tmp_path: Path) -> None:
    """What it is started with was read when the server started."""
    with Site(tmp_path, LEVELS, "--workers", "2") as site:
        _, path = site.user("fay").save("team")
        bob = site.user("bob")
        assert bob.status("GET", path) == 403
        site.write(LEVELS.replace('who = ["ray"]', 'who = ["ray", "bob"]'))
        site.reload("4 rules in effect")
        until(lambda: {bob.status("GET", path) for _ in range(8)} == {200}, "bob is not let in")
        server = site.server.process.process.pid
        for worker in workers_of(server):
            os.kill(worker, signal.SIGKILL)
        until(lambda: len(workers_of(server)) == 2, "no worker was replaced")
        until(lambda: {bob.status("GET", path) for _ in range(8)} == {200}, "the rules are old")


def workers_of(server: int) -> list[int]:
    """Return the processes that answer for a server."""
    return list(map(int, Path(f"/proc/{server}/task/{server}/children").read_text().split()))


def test_a_token_narrows_its_user(site: Site) -> None:
    with site:
        assert site.user("fay").save("team")[0] == 200
        token = site.token("--user", "fay", "--allow", "append", "--on", "repository:*/team")
        for client in (Client(site.server, bearer=token), Client(site.server, "fay", token)):
            status, path = client.save("team")
            assert status == 200
            assert client.status("GET", path) == 200
            assert client.status("DELETE", path) == 403
            assert client.save("other")[0] == 403
        # It acts for fay; nobody else can use it, and no rule gives it more than it has.
        assert Client(site.server, "ann", token).status("GET", path) == 401
        assert Client(site.server, bearer=token[:-1] + "x").status("GET", path) == 401


def test_a_revoked_token_is_refused_by_a_running_server(site: Site) -> None:
    with site:
        token = site.token("--user", "fay", "--allow", "full", "--on", "*:**")
        client = Client(site.server, bearer=token)
        assert client.save("team")[0] == 200
        program = Gateway.program()[0]
        revoke = [program, "token", "revoke", "--config", str(site.config), token.split("_")[1]]
        subprocess.run(revoke, check=True, capture_output=True, timeout=60)
        until(lambda: client.status("GET", "/team/data/") == 401, "it is let in for ever")


def test_where_no_token_was_ever_made_one_that_is_shown_is_just_wrong(site: Site) -> None:
    """401, which restic takes as final, and no state folder is made because a stranger asked."""
    with site:
        token = f"bgw_0123456789ab_{'x' * 43}"
        assert Client(site.server, bearer=token).status("GET", "/team/config") == 401
        assert Client(site.server, "fay", token).status("GET", "/team/config") == 401
        assert not site.state.exists()
        assert site.user("fay").save("team")[0] == 200


def test_tokens_that_cannot_be_looked_up_are_not_wrong(site: Site) -> None:
    """restic goes on trying after 503; after 401 a backup would have failed for good."""
    with site:
        site.state.mkdir(mode=0o700)
        (site.state / "state.sqlite3").write_bytes(b"not a database, but long enough" * 100)
        token = f"bgw_0123456789ab_{'x' * 43}"
        assert Client(site.server, bearer=token).status("GET", "/team/config") == 503
        assert site.user("fay").save("team")[0] == 200


def key(name: str, secret: str) -> str:
    return f'[[tokens.key]]\nid = "{name}"\nalgorithm = "HS256"\nsecret = "{secret}"\n'


def test_keys_of_signed_tokens_rotate_without_a_restart(tmp_path: Path) -> None:
    from backupgw.runtime.settings_tokens import KeySettings, TokenSettings
    from backupgw.runtime.tokens import DatabaseTokens
    from backupgw.runtime.tokens.signed import SignedTokens, load_key

    secrets = {"old": "o" * 32, "new": "n" * 32}

    def signed(name: str) -> str:
        settings = KeySettings.model_validate(
            {"id": name, "algorithm": "HS256", "secret": secrets[name]}
        )
        store = DatabaseTokens.at("sqlite:///unused")
        return SignedTokens([load_key(settings)], TokenSettings(), store).issue(
            "fay", ["append"], ["repository:*/**"], lifetime=600, now=time.time()
        )

    with Site(tmp_path, LEVELS) as site:
        old, new = (Client(site.server, bearer=signed(name)) for name in ("old", "new"))
        assert old.save("team")[0] == 401
        site.write(LEVELS + key("old", secrets["old"]))  # the first one of all
        site.reload("4 rules in effect")
        until(lambda: old.save("team")[0] == 200, "the first key was not taken")
        status, path = old.save("team")
        assert status == 200
        assert old.status("DELETE", path) == 403
        assert new.status("GET", path) == 401
        site.write(LEVELS + key("new", secrets["new"]))
        site.reload("4 rules in effect")
        until(lambda: new.status("GET", path) == 200, "the new key was not taken")
        assert old.status("GET", path) == 401


def test_metrics_are_for_those_whom_the_rules_let_list_the_place(tmp_path: Path) -> None:
    with Site(tmp_path, LEVELS, "--prometheus") as site:
        assert site.user("fay").status("GET", "/metrics") == 200
        assert site.user("ray").status("GET", "/metrics") == 401
        token = site.token("--user", "fay", "--allow", "full", "--on", "repository:*/team")
        assert Client(site.server, bearer=token).status("GET", "/metrics") == 401
