"""Which servers are trusted: known hosts, and what is done about others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.kvstore.sftp.places import place, refused, settings, works
from tests.servers.sshd import Sshd

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.sftp_known_hosts import HostKeyRefused

pytestmark = pytest.mark.root("sshd")


def known_line(sshd: Sshd, names: str, key: str = "host") -> str:
    return f"{names} {(sshd.folder / f'{key}.pub').read_text()}"


def test_an_unknown_host_is_refused_with_what_to_do(sshd: Sshd, served: Path) -> None:
    config = settings(sshd, "unknown", host_key=None)
    said = refused(place(sshd, served, ssh_config=config), HostKeyRefused)
    public = sshd.folder / "host.pub"
    listed = subprocess.run(
        ["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True
    ).stdout
    assert listed.split()[1] in said, "the fingerprint as ssh-keygen shows it"
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1" in said
    line, file = re.findall(r"add '(.+?)' to (\S+)", said)[0]
    Path(file).write_text(f"{line}\n")
    works(place(sshd, served, ssh_config=config))


def test_a_changed_host_key_is_refused_with_its_line(sshd: Sshd, served: Path) -> None:
    config = settings(sshd, "changed", host_key="other-host")
    known = sshd.folder / "known-other-host"
    known.write_text("# a comment\n\n" + known.read_text())
    said = refused(place(sshd, served, ssh_config=config), HostKeyRefused)
    assert f"{known} line 3" in said


def test_the_forms_of_known_hosts(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    config, file = settings(sshd, "forms"), tmp_path / "known_hosts"
    own = f"[127.0.0.1]:{sshd.port}"

    def try_with(*lines: str) -> Backend:
        file.write_text("".join(lines))
        return place(sshd, served, ssh_config=config, known_hosts=str(file))

    works(try_with(known_line(sshd, f"elsewhere,{own}")))
    works(try_with(known_line(sshd, "127.0.0.1")))
    works(try_with(known_line(sshd, f"[127.0.0.*]:{sshd.port}")))
    refused(try_with(known_line(sshd, f"!127.0.0.1,!{own},*")), HostKeyRefused)
    refused(try_with(known_line(sshd, f"*,!{own},!127.0.0.1")), HostKeyRefused)
    said = refused(
        try_with(known_line(sshd, own), f"@revoked * {known_line(sshd, own).split(None, 1)[1]}"),
        HostKeyRefused,
    )
    assert f"{file} line 2 revokes" in said
    works(try_with(known_line(sshd, own, "other-host"), known_line(sshd, own)))
    file.write_text(known_line(sshd, own))
    subprocess.run(["ssh-keygen", "-qHf", file], check=True, capture_output=True)
    assert own not in file.read_text()
    works(place(sshd, served, ssh_config=config, known_hosts=str(file)))


def test_the_kind_of_key_that_is_known_is_asked_for(tmp_path: Path, served: Path) -> None:
    """A server with keys of two kinds shows the one that the host is known by."""
    folder = tmp_path / "two-keys"
    rsa = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-qt", "rsa", "-b", "2048", "-N", "", "-f", rsa], check=True)
    with Sshd(folder, settings=[f"HostKey {rsa}"]) as server:
        file = tmp_path / "known"
        file.write_text(f"[127.0.0.1]:{server.port} {rsa.with_suffix('.pub').read_text()}")
        works(place(server, served, known_hosts=str(file)))


def test_accept_new_notes_a_key_once(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    file = tmp_path / "ssh/known"
    config = settings(
        sshd,
        "accept-new",
        "StrictHostKeyChecking accept-new",
        f"UserKnownHostsFile {file}",
        "HashKnownHosts yes",
    )
    works(place(sshd, served, ssh_config=config))
    assert len(file.read_text().splitlines()) == 1
    assert "127.0.0.1" not in file.read_text()
    works(place(sshd, served, ssh_config=config))
    assert len(file.read_text().splitlines()) == 1
    file.write_text(known_line(sshd, f"[127.0.0.1]:{sshd.port}", "other-host"))
    refused(place(sshd, served, ssh_config=config), HostKeyRefused)


def test_host_key_alias(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(known_line(sshd, "the-box"))
    config = settings(sshd, "alias", "HostKeyAlias the-box", f"UserKnownHostsFile {file}")
    works(place(sshd, served, ssh_config=config))
