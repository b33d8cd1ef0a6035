"""TLS: versions, client certificates, and a certificate that is renewed while we run."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from backupgw.runtime.http.errors import HostError
from backupgw.runtime.http.options import HttpOptions
from backupgw.runtime.http.tls import Certificate
from tests.runtime.http_process import PATIENCE, HostProcess, Wire


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write_pair(folder: Path, authority: trustme.CA, name: str = "server") -> dict[str, Any]:
    issued = authority.issue_cert("127.0.0.1", common_name="gateway")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    return {"listen": "127.0.0.1:0", "tls": True, "tls_cert": str(cert), "tls_key": str(key)}


@pytest.fixture
def options(tmp_path: Path, authority: trustme.CA) -> dict[str, Any]:
    return write_pair(tmp_path, authority)


@pytest.fixture
def client(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def connect(host: HostProcess, context: ssl.SSLContext) -> Wire:
    sock = socket.create_connection(("127.0.0.1", host.port), PATIENCE)
    try:
        return Wire(context.wrap_socket(sock, server_hostname="127.0.0.1"))
    except BaseException:
        sock.close()
        raise


def serial(wire: Wire) -> str:
    assert isinstance(wire.sock, ssl.SSLSocket)
    certificate = wire.sock.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def test_requests_are_answered_over_tls(options: dict[str, Any], client: ssl.SSLContext) -> None:
    client.set_alpn_protocols(["h2", "http/1.1"])
    with HostProcess(options) as host, connect(host, client) as wire:
        assert isinstance(wire.sock, ssl.SSLSocket)
        assert wire.sock.selected_alpn_protocol() == "http/1.1"
        body = bytes(3 << 20)
        answer = wire.request("POST", "/echo", body=body).json()
        assert (answer["scheme"], answer["size"]) == ("https", len(body))
        assert answer["tls"]["client_cert_name"] is None
        assert wire.request("POST", "/early", body=bytes(1 << 20)).status == 403
        wire.send(b"GET /a b HTTP/1.1\r\n\r\n")
        assert wire.answer().status == 400


def test_an_old_version_of_tls_is_refused(options: dict[str, Any], client: ssl.SSLContext) -> None:
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with HostProcess({**options, "tls_min_version": "1.3"}) as host:
        with pytest.raises(ssl.SSLError):
            connect(host, client)
        client.maximum_version = ssl.TLSVersion.TLSv1_3
        with connect(host, client) as wire:
            assert wire.request("GET", "/echo").status == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_plain_http_on_the_tls_port_is_answered_and_told_once(
    options: dict[str, Any], client: ssl.SSLContext, workers: int
) -> None:
    with HostProcess({**options, "workers": workers}) as host:
        for _ in range(5 * workers):
            with host.connect() as plain:
                plain.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                answer = plain.rest()
                assert answer.startswith(b"HTTP/1.0 400 ")
                assert b"https://" in answer
        with connect(host, client) as wire:
            assert wire.request("GET", "/echo").status == 200
        host.wait_for("127.0.0.1 speaks plain HTTP to a port with TLS")
        assert sum("plain HTTP" in line for line in host.lines) <= workers


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_does_not_trust_the_certificate_is_told_of(
    options: dict[str, Any], version: ssl.TLSVersion
) -> None:
    strange = ssl.create_default_context()
    strange.maximum_version = version
    with HostProcess(options) as host:
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(host, strange)
        host.wait_for("127.0.0.1 failed: it does not know who signed the certificate in tls_cert")


def test_a_client_that_never_finishes_the_handshake_is_dropped(options: dict[str, Any]) -> None:
    with HostProcess({**options, "header_timeout": 1}) as host, host.connect() as silent:
        assert silent.rest() == b""


@pytest.fixture
def with_client_ca(
    options: dict[str, Any], tmp_path: Path, authority: trustme.CA
) -> Iterator[HostProcess]:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    with HostProcess({**options, "tls_client_ca": str(path)}) as host:
        yield host


def test_the_service_sees_the_subject_of_a_client_certificate(
    with_client_ca: HostProcess, client: ssl.SSLContext, authority: trustme.CA
) -> None:
    authority.issue_cert(
        "alice@example.org", common_name="alice, a", organization_name="Ex+mple"
    ).configure_cert(client)
    with connect(with_client_ca, client) as wire:
        tls = wire.request("GET", "/echo").json()["tls"]
    assert tls["client_common_name"] == "alice, a"
    assert tls["client_cert_name"].startswith("CN=alice\\, a,")
    assert "O=Ex\\+mple" in tls["client_cert_name"]


def test_no_certificate_or_a_strange_one_gets_no_answer(
    with_client_ca: HostProcess, client: ssl.SSLContext
) -> None:
    for stranger in (None, trustme.CA().issue_cert("mallory@example.org", common_name="alice")):
        if stranger is not None:
            stranger.configure_cert(client)
        # In TLS 1.3 the server's refusal comes after the client's handshake is done.
        with (
            pytest.raises((ssl.SSLError, ConnectionError, EOFError)),
            connect(with_client_ca, client) as wire,
        ):
            wire.request("GET", "/echo")


def test_a_renewed_certificate_is_taken_on_sighup_and_open_connections_stay(
    options: dict[str, Any], client: ssl.SSLContext, authority: trustme.CA, tmp_path: Path
) -> None:
    fresh = write_pair(tmp_path, authority, "fresh")
    with HostProcess(options) as host, connect(host, client) as old:
        before = serial(old)
        shutil.copy(fresh["tls_cert"], options["tls_cert"])  # half a renewal: no matching key
        host.signal(signal.SIGHUP)
        told = host.wait_for("the key does not belong to the certificate")
        assert "the old certificate stays" in told
        with connect(host, client) as wire:
            assert serial(wire) == before
        shutil.copy(fresh["tls_key"], options["tls_key"])
        host.signal(signal.SIGHUP)
        while old.request("GET", "/echo").json()["reloads"] < 2:
            pass
        with connect(host, client) as wire:
            assert serial(wire) != before
        assert old.request("GET", "/echo").status == 200


def test_a_renewed_certificate_is_noticed_without_a_signal(
    options: dict[str, Any], authority: trustme.CA, tmp_path: Path
) -> None:
    settings = HttpOptions(**options)
    certificate = Certificate(settings)
    loaded: list[object] = []
    certificate.context = Recorder(loaded)  # type: ignore[assignment]
    certificate.refresh_if_changed()
    assert loaded == []
    fresh = write_pair(tmp_path, authority, "fresh")
    shutil.copy(fresh["tls_cert"], options["tls_cert"])
    shutil.copy(fresh["tls_key"], options["tls_key"])
    certificate.refresh_if_changed()
    certificate.refresh_if_changed()
    assert loaded == [settings.tls_cert]


class Recorder:
    def __init__(self, loaded: list[object]) -> None:
        self.loaded = loaded

    def load_cert_chain(self, cert: object, *_: object) -> None:
        self.loaded.append(cert)


def test_what_is_wrong_with_a_certificate_is_one_line(
    options: dict[str, Any], tmp_path: Path, authority: trustme.CA
) -> None:
    other = write_pair(tmp_path, authority, "other")
    host = HostProcess({**options, "tls_key": other["tls_key"]})
    assert host.wait() == 1
    host.stop()
    (line,) = host.lines
    assert "server.pem" in line
    assert "the key does not belong to the certificate" in line


def test_missing_unreadable_and_broken_files_are_named(
    options: dict[str, Any], tmp_path: Path
) -> None:
    broken, empty, cut = (tmp_path / name for name in ("broken.pem", "empty.pem", "cut.pem"))
    broken.write_text("no PEM")
    empty.touch()
    cut.write_bytes(Path(options["tls_cert"]).read_bytes()[:300] + b"\n-----END CERTIFICATE-----\n")
    der = tmp_path / "der.crt"
    der.write_bytes(ssl.PEM_cert_to_DER_cert(Path(options["tls_cert"]).read_text()))
    for changed, expected in (
        ({"tls_cert": "/nonexistent.pem"}, r" /nonexistent\.pem cannot be read: No such file"),
        ({"tls_key": "/nonexistent.key"}, r" /nonexistent\.key cannot be read: No such file"),
        ({"tls_cert": str(broken)}, r"broken\.pem: must be a PEM file with a certificate"),
        ({"tls_key": str(broken)}, r"broken\.pem: must be a PEM file with a private key"),
        ({"tls_cert": str(empty)}, r"empty\.pem: must be .*, but it is empty"),
        ({"tls_cert": str(der)}, r"der\.crt: must be .*, but it is in DER; openssl x509"),
        ({"tls_cert": str(cut)}, r"cut\.pem: damaged or cut short"),
        ({"tls_key": options["tls_cert"]}, r'server\.pem: must be .* key .*it has "CERTIFICATE"'),
        ({"tls_client_ca": str(broken)}, r"tls_client_ca .*broken\.pem: must be a PEM file"),
        ({"tls_key": None}, r"tls_key is not set"),
        ({"tls_cert": None}, r"tls_cert is not set"),
    ):
        with pytest.raises(HostError, match=expected):
            Certificate(HttpOptions(**{**options, **changed}))


def test_an_encrypted_key_is_named_with_the_command_that_decrypts_it(
    options: dict[str, Any], tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(Path(options["tls_key"]).read_bytes(), None)
    path = tmp_path / "encrypted.key"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(HostError, match="encrypted; decrypt it: openssl pkey"):
        Certificate(HttpOptions(**{**options, "tls_key": str(path)}))
