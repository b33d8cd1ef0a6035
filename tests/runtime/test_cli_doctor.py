"""`backupgw doctor`: finds what would go wrong before a backup does."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.runtime import checks, cli
from tests.servers.tls import Certificate


def doctor(
    capsys: pytest.CaptureFixture[str], config: Path
) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    capsys.readouterr()
    status = cli.main(["doctor", "--json", "--config", str(config)])
    found: dict[str, list[dict[str, Any]]] = {}
    for check in json.loads(capsys.readouterr().out)["checks"]:
        found.setdefault(check["check"], []).append(check)
    return status, found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    PosixFS(str(folder)).create()
    return folder


def settings(tmp_path: Path, place: Path, rest: str = "") -> Path:
    config = tmp_path / "gw.toml"
    config.write_text(f'[places.default]\nurl = "file://{place}"\n[rest]\n{rest}')
    return config


def test_a_healthy_gateway(tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(tmp_path, place)
    status, found = doctor(capsys, config)
    assert status == 0
    assert [check["status"] for check in found["settings"]] == ["ok"]
    assert found["place default"][0]["message"] == "opens, and can be written, read and deleted"
    assert "free" in found["place default"][1]["message"]
    assert found["clock"][0]["status"] == "ok"
    leftovers = [path for path in place.rglob("*") if "doctor" in path.name]
    assert leftovers == []
    assert cli.main(["doctor", "--config", str(config)]) == 0
    assert "ok       place default  opens" in capsys.readouterr().out


def test_bad_settings_are_the_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "gw.toml"
    config.write_text("[log]\nlevle = 1\n")
    status, found = doctor(capsys, config)
    assert status == 1
    assert found["settings"][0]["message"].startswith(f"{config}:2: log.levle")


def test_a_place_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = doctor(capsys, settings(tmp_path, tmp_path / "new"))
    assert status == 0
    assert found["place default"][0]["status"] == "warning"
    (tmp_path / "file").touch()
    status, found = doctor(capsys, settings(tmp_path, tmp_path / "file" / "below"))
    assert status == 1
    assert found["place default"][0]["status"] == "failed"


def test_a_place_that_cannot_be_written(
    tmp_path: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from backupgw.kvstore.backends.errors import PermissionDenied

    def refuse(self: PosixFS, name: str, **options: Any) -> Any:
        raise PermissionDenied(f"{name}: read-only file system")

    monkeypatch.setattr(PosixFS, "open_writer", refuse)
    status, found = doctor(capsys, settings(tmp_path, place))
    assert status == 1
    assert "read-only file system" in found["place default"][0]["message"]


def test_a_full_disk(
    tmp_path: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "NO_SPACE", 1 << 80)
    status, found = doctor(capsys, settings(tmp_path, place))
    assert status == 1
    assert "make room" in found["place default"][-1]["message"]


def test_password_files(tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users = tmp_path / "users"
    config = settings(tmp_path, place, f'htpasswd_file = "{users}"\n')
    status, found = doctor(capsys, config)
    assert status == 1
    assert "htpasswd -B -c" in found["rest passwords"][0]["message"]
    users.write_text("ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")
    users.chmod(0o600)
    status, found = doctor(capsys, config)
    assert status == 0
    assert found["rest passwords"][0]["message"].endswith("1 users")
    users.chmod(0o644)
    assert doctor(capsys, config)[1]["rest passwords"][0]["status"] == "warning"
    beside = place / ".htpasswd"
    beside.write_text("bob:plain\n")
    status, found = doctor(capsys, settings(tmp_path, place))
    assert status == 1
    assert found["rest passwords"][0]["message"].startswith(f"{beside}:1: user bob")


def test_certificates(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str], certificate: Certificate
) -> None:
    def check(chain: Path, key: Path) -> dict[str, Any]:
        rest = f'tls = true\ntls_cert = "{chain}"\ntls_key = "{key}"\n'
        [found] = doctor(capsys, settings(tmp_path, place, rest))[1]["rest certificate"]
        return found

    assert check(certificate.chain, certificate.key)["status"] == "ok"
    other = tmp_path / "other.key"
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(str(other))
    assert "does not belong to the certificate" in check(certificate.chain, other)["message"]
    assert "No such file" in check(certificate.chain, tmp_path / "none")["message"]
    other.write_text("nonsense")
    assert "must be a PEM file with a private key" in check(certificate.chain, other)["message"]
    assert "must be a PEM file with a certificate" in check(other, certificate.key)["message"]


@pytest.mark.parametrize(("days", "status"), [(-1, "failed"), (5, "warning"), (90, "ok")])
def test_the_end_of_a_certificate(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str], days: int, status: str
) -> None:
    from datetime import UTC, datetime, timedelta

    ends = datetime.now(UTC) + timedelta(days=days)
    issued = trustme.CA().issue_cert("localhost", not_after=ends)
    chain, key = tmp_path / "c.pem", tmp_path / "k.pem"
    issued.cert_chain_pems[0].write_to_path(str(chain))
    issued.private_key_pem.write_to_path(str(key))
    rest = f'tls = true\ntls_cert = "{chain}"\ntls_key = "{key}"\n'
    [found] = doctor(capsys, settings(tmp_path, place, rest))[1]["rest certificate"]
    assert found["status"] == status
    if status == "failed":
        assert "expired" in found["message"]


def test_a_clock_before_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_clock().status is checks.Status.OK
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert checks.check_clock().status is checks.Status.FAILED


def test_a_place_that_is_closed_to_us_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "closed" / "place"
    place.mkdir(parents=True)
    look, enter = os.stat, os.open

    # Tests may run as root, to whom nothing is closed.
    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(place)):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **options)

    def open_(path: Any, *args: Any, **options: Any) -> int:
        if str(path).startswith(str(place)):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return enter(path, *args, **options)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "open", open_)
    status, found = doctor(capsys, settings(tmp_path, place))
    assert status == 1
    assert found["place default"][0]["status"] == "failed"
    assert "Permission denied" in found["place default"][0]["message"]
    assert found["clock"][0]["status"] == "ok"
