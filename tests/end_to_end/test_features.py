"""What the gateway has beyond rest-server, with a real restic: limits, users, certificates, rates,
lost answers, removal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.tree import describe, differences
from tests.restserver.client import Client
from tests.servers import peers
from tests.servers.double import Fault, Faults
from tests.servers.gateway import Gateway
from tests.servers.http_proxy import faulty
from tests.servers.restic import Restic
from tests.servers.tls import Certificate, make_certificate

pytestmark = pytest.mark.peers(peers.RESTIC_NEW)

PROGRAM = Gateway.program()[0]


def restic_of(repository: str, home: Path, **more: Any) -> Restic:
    return Restic(peers.get(peers.RESTIC_NEW), repository, home, **more)


def settings(folder: Path, text: str) -> list[str]:
    """Write a settings file and return the flag that names it."""
    config = folder / "backupgw.toml"
    config.write_text(f'[state]\nfolder = "{folder}/state"\n{text}')
    return ["--config", str(config)]


def noise(folder: Path, files: int, size: int) -> Path:
    folder.mkdir()
    for number in range(files):
        (folder / str(number)).write_bytes(os.urandom(size))
    return folder


def test_a_full_limit_is_named_and_a_prune_makes_room(repositories: Path, tmp_path: Path) -> None:
    flags = settings(tmp_path, '[[rest.quota.user]]\nwho = "ann"\nbytes = "12 MB"\n')
    first = noise(tmp_path / "first", 8, 1_000_000)
    second = noise(tmp_path / "second", 8, 1_000_000)
    with Gateway(repositories, users={"ann": "a"}, flags=flags) as server:
        restic = restic_of(server.repository("ann/laptop", user="ann"), tmp_path / "home")
        restic.init(repositories / "ann/laptop")
        restic.run("backup", first)
        begun = time.monotonic()
        said = restic.fail("backup", second)
        assert "507" in said, said
        assert time.monotonic() - begun < 60, "restic took a limit for a failure that passes"
        restic.run("unlock")
        (snapshot,) = restic.snapshots()
        restic.run("forget", snapshot, "--prune")
        restic.run("backup", second)
        restic.check()


def test_users_come_and_go_while_the_server_runs(repositories: Path, tmp_path: Path) -> None:
    with Gateway(repositories, users={"ann": "a"}) as server:

        def user(*arguments: str, password: str = "") -> None:
            subprocess.run(
                [PROGRAM, "rest", "user", *arguments, "--htpasswd-file", str(server.htpasswd)],
                input=f"{password}\n",
                text=True,
                check=True,
                capture_output=True,
                timeout=60,
            )

        def restic(password: str) -> Restic:
            login = {"RESTIC_REST_USERNAME": "bob", "RESTIC_REST_PASSWORD": password}
            return restic_of(server.repository("bob"), tmp_path / "home", environment=login)

        user("add", "bob", password="first password")
        restic("first password").init(repositories / "bob")
        user("passwd", "bob", password="second password")
        until(lambda: restic("second password").attempt("cat", "config").returncode == 0)
        until(lambda: "401" in restic("first password").attempt("cat", "config").stderr)
        user("remove", "bob")
        until(lambda: "401" in restic("second password").attempt("cat", "config").stderr)


def until(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.3)


def test_a_repository_is_seen_counted_and_removed_by_its_owner(
    small_tree: Path, repositories: Path, tmp_path: Path
) -> None:
    flags = settings(
        tmp_path,
        "[rest]\nremovable_repos = true\nprivate_repos = true\n"
        "[rest.repository_metrics]\nrefresh = '1 s'\n",
    )
    flags += ["--workers", "2", "--prometheus", "--prometheus-no-auth"]
    with Gateway(repositories, users={"ann": "a", "bob": "b"}, flags=flags) as server:
        restic = restic_of(server.repository("ann/laptop", user="ann"), tmp_path / "home")
        restic.init(repositories / "ann/laptop")
        restic.run("backup", small_tree)
        ann, bob = Client(server, "ann", "a"), Client(server, "bob", "b")
        listed = subprocess.run(
            [PROGRAM, "rest", "repos", "--path", str(repositories), "--json"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        (found,) = json.loads(listed.stdout)
        assert found["types"]["snapshots"]["objects"] == 1

        def measured() -> dict[str, float]:
            families = text_string_to_metric_families(ann.call("GET", "/metrics").text)
            return {
                sample.labels["type"]: sample.value
                for family in families
                for sample in family.samples
                if sample.name == "backupgw_rest_repository_bytes"
                and sample.labels["repo"] == "ann/laptop"
            }

        until(lambda: measured() == {kind: each["bytes"] for kind, each in found["types"].items()})
        assert bob.status("DELETE", "/ann/laptop/?delete=true") == 401
        assert ann.status("DELETE", "/ann/laptop/?delete=true") == 200
        assert "does not exist" in restic.fail("snapshots")
        until(lambda: measured() == {})


class ByCertificate(Gateway):
    """A gateway whose users are those of its clients' certificates."""

    def _arguments(self) -> list[str]:
        return [argument for argument in super()._arguments() if argument != "--no-auth"]


def test_clients_show_certificates_and_the_servers_own_is_replaced(
    small_tree: Path, repositories: Path, tmp_path: Path
) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "new").mkdir()
    certificate = make_certificate(tmp_path / "tls")
    clients = trustme.CA()
    clients.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    shown = tmp_path / "laptop.pem"
    issued = clients.issue_cert(common_name="laptop")
    issued.private_key_and_cert_chain_pem.write_to_path(str(shown))
    flags = settings(
        tmp_path,
        f'[rest]\ntls_client_ca = "{tmp_path}/clients.pem"\ntls_client_users = true\n'
        "private_repos = true\nno_auth = false\n",
    )
    with ByCertificate(
        repositories, transport="tls", certificate=certificate, flags=flags
    ) as server:

        def restic(trusted: Certificate, repo: str = "laptop") -> Restic:
            address = server.repository(repo)
            return restic_of(address, tmp_path / "home", certificate=trusted)

        with_certificate = ("--tls-client-cert", str(shown))
        restic(certificate).run(*with_certificate, "init")
        restic(certificate).run(*with_certificate, "backup", small_tree)
        others = restic(certificate, "somebody").fail(*with_certificate, "cat", "config")
        assert "401" in others, others
        assert not is_answered(server.port, certificate, None)
        renewed = make_certificate(tmp_path / "new")
        certificate.chain.write_bytes(renewed.chain.read_bytes())
        certificate.key.write_bytes(renewed.key.read_bytes())
        server.process.process.send_signal(signal.SIGHUP)
        until(lambda: is_answered(server.port, renewed, shown))
        restic(renewed).run(*with_certificate, "check", "--read-data")


def is_answered(port: int, trusted: Certificate, shown: Path | None) -> bool:
    """Whether who trusts this authority alone, and shows this certificate, gets an answer.

    restic takes a refused certificate for a failure that passes, and tries for 15 minutes.
    """
    context = trusted.client_context()
    if shown is not None:
        context.load_cert_chain(str(shown))
    connection = HTTPSConnection("localhost", port, timeout=20, context=context)
    try:
        connection.request("GET", "/laptop/config")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_a_backup_beyond_its_rates_takes_longer_and_is_whole(
    repositories: Path, tmp_path: Path
) -> None:
    rates = '[[rest.rates.user]]\nwho = "ann"\nrequests = 8\nburst = 12\nupload = "8 MB/s"\n'
    flags = [*settings(tmp_path, rates), "--workers", "2", "--prometheus", "--prometheus-no-auth"]
    tree = noise(tmp_path / "tree", 24, 1_000_000)
    with Gateway(repositories, users={"ann": "a"}, flags=flags) as server:
        restic = restic_of(server.repository("ann", user="ann"), tmp_path / "home")
        restic.init(repositories / "ann")
        begun = time.monotonic()
        restic.run("--pack-size", "4", "backup", tree)
        assert time.monotonic() - begun > 24 / 8 - 1
        for _ in range(3):
            restic.run("cat", "config", "--no-cache")
        restic.check()
        refused = Client(server).call("GET", "/metrics").text
        assert 'backupgw_rest_limited_total{by="user"}' in refused


def test_a_backup_whose_answers_are_lost_ends_well_with_each_blob_once(
    repositories: Path, tmp_path: Path
) -> None:
    """rest-server answers the repeated upload of an append-only client with 403, for ever."""
    tree = noise(tmp_path / "tree", 24, 1_000_000)
    before = describe(tree)
    with (
        Gateway(repositories, append_only=True, flags=["--workers", "2"]) as server,
        faulty(f"http://127.0.0.1:{server.port}") as proxy,
    ):
        restic = restic_of(f"rest:{proxy.url}/repo/", tmp_path / "home")
        restic.init(repositories / "repo")
        proxy.faults = Faults(
            rate=1 / 3,
            kinds=[Fault.LOST],
            seed=2,
            only=lambda call: call["method"] == "POST" and "/data/" in call["path"],
        )
        restic.run("--pack-size", "4", "backup", ".", directory=tree)
        assert proxy.faults.hit >= 2
        direct = restic_of(server.repository("repo"), tmp_path / "other home")
        direct.check()
        direct.run("restore", "latest", "--target", tmp_path / "restored")
        assert differences(before, describe(tmp_path / "restored")) == []
        stored = [path.name for path in (repositories / "repo/data").glob("*/*")]
        assert len(stored) == len(set(stored))
