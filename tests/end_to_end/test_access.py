"""Who may do what: passwords, private repositories, append-only history."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.servers import peers
from tests.servers.child import Child
from tests.servers.rest_server import TCP, TLS, UNIX, RestServer
from tests.servers.restic import Restic
from tests.servers.tls import Certificate

USERS = {"alice": "p@ss/word:with%all #of?it ü", "bob": "builder"}


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file of a repository with its bytes; locks come and go and are left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "locks"
    }


def refused(restic: Restic, *command: str) -> bool:
    """Run a command until it prints that the server answered 403, and end it there.

    restic before 0.17 tries a refused removal ten times over a minute.
    """
    with Child(
        restic.command(*command),
        env=restic.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        found = any("403" in line for line in running.stdout)
        running.kill()
    return found


def test_append_only_keeps_history(
    restic_peer: peers.Peer,
    small_tree: Path,
    repositories: Path,
    tmp_path: Path,
    certificate: Certificate,
    server_class: type[RestServer],
) -> None:
    """Backups go on; forget and prune are refused and not one byte of history changes."""
    with server_class(
        repositories,
        transport=TLS,
        certificate=certificate,
        append_only=True,
        users=USERS,
        private_repos=True,
    ) as server:
        restic = Restic(
            restic_peer,
            server.repository("alice/history", user="alice"),
            tmp_path / "home",
            certificate=server.certificate,
        )
        restic.init(repositories / "alice/history")
        restic.run("backup", ".", directory=small_tree)
        (small_tree / "more").write_text("more")
        restic.run("backup", ".", directory=small_tree)
        first, second = restic.snapshots()
        before = files_below(repositories)

        for command in (
            ("forget", first),
            ("forget", "--keep-last", "1", "--prune"),
            ("tag", "--add", "x", first),
        ):
            assert refused(restic, *command), f"restic {command} met no refusal"
            # What a client died of leaves a lock, and only unlock would free the repository.
            restic.run("unlock", "--remove-all")
            assert restic.run("list", "locks", "--no-lock").stdout == ""
        now = files_below(repositories)
        assert {name: now.get(name) for name in before} == before, "history was changed"
        assert {first, second} <= set(restic.snapshots())

        restic.run("backup", ".", directory=small_tree)
        restic.check()
        restic.run("restore", second, "--target", tmp_path / "restored")
        assert (
            tree.differences(tree.describe(small_tree), tree.describe(tmp_path / "restored")) == []
        )


def test_private_repositories(
    restic_peer: peers.Peer,
    small_tree: Path,
    repositories: Path,
    tmp_path: Path,
    server_class: type[RestServer],
) -> None:
    """A user's own repositories work; anybody else's, and the root, are refused at once."""
    with server_class(repositories, users=USERS, private_repos=True) as server:

        def as_user(user: str, path: str) -> Restic:
            repository = server.repository(path, user=user)
            return Restic(restic_peer, repository, tmp_path / f"home of {user}")

        for own in ("alice", "alice/deeper"):
            alice = as_user("alice", own)
            alice.init(repositories / own)
            alice.run("backup", ".", directory=small_tree)
            alice.check()
        before = files_below(repositories)

        for path in ("alice", "alice/deeper", "alice/new", "", "carol", "bobby"):
            bob = as_user("bob", path)
            for command in (("init",), ("snapshots",), ("backup", ".")):
                # "Is there a repository? … unexpected HTTP response (401): 401 Unauthorized"
                output = bob.fail(*command, directory=small_tree)
                assert "(401)" in output, f"{command} on {path!r}: {output}"
        assert files_below(repositories) == before
        assert sorted(path.name for path in repositories.iterdir()) == ["alice"]


def test_wrong_or_missing_password_is_refused(
    restic_peer: peers.Peer,
    repositories: Path,
    tmp_path: Path,
    certificate: Certificate,
    server_class: type[RestServer],
) -> None:
    """restic says 401 at once, instead of trying again for a quarter of an hour."""
    # restic 0.14 knows no unix sockets.
    transports = (TCP, TLS) if restic_peer.name == peers.RESTIC_OLD else (TCP, TLS, UNIX)
    for transport in transports:
        with server_class(
            repositories, transport=transport, certificate=certificate, users=USERS
        ) as server:
            wrong = server.repository("mine", user="alice").replace("p%40ss", "pass")
            unknown = server.repository("mine", user="bob").replace("bob:", "carol:")
            for repository in (wrong, unknown, server.repository("mine")):
                restic = Restic(
                    restic_peer, repository, tmp_path / "home", certificate=server.certificate
                )
                for command in ("init", "snapshots"):
                    assert "(401)" in restic.fail(command)
            assert list(repositories.iterdir()) == []


@pytest.mark.peers(peers.RESTIC_NEW)
def test_password_from_the_environment(
    repositories: Path,
    small_tree: Path,
    tmp_path: Path,
    server_class: type[RestServer],
) -> None:
    """RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD work, so no password need be in an address."""
    with server_class(
        repositories,
        transport=UNIX,
        users=USERS,
        private_repos=True,
    ) as server:
        restic = Restic(
            peers.get(peers.RESTIC_NEW),
            server.repository("alice"),
            tmp_path / "home",
            environment={
                "RESTIC_REST_USERNAME": "alice",
                "RESTIC_REST_PASSWORD": USERS["alice"],
            },
        )
        restic.run("init")
        restic.run("backup", ".", directory=small_tree)
        restic.check()


def test_untrusted_certificate_is_refused(
    restic_peer: peers.Peer,
    repositories: Path,
    tmp_path: Path,
    certificate: Certificate,
    server_class: type[RestServer],
) -> None:
    """Over TLS restic believes nobody but the authority it was given."""
    with server_class(repositories, transport=TLS, certificate=certificate) as server:
        restic = Restic(restic_peer, server.repository("mine"), tmp_path / "home")
        assert "certificate" in restic.fail("init")
        assert list(repositories.iterdir()) == []
