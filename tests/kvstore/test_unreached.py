"""A service that cannot be reached, or that something else answers for, ends in one line that says
why; whatever a library makes of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.kvstore.scripted_server import Reply, ScriptedServer

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.errors import BackendError

ONCE: dict[str, Any] = {"attempts": 1}
GRANT = {"refresh_token": "grant", "client_id": "id", "client_secret": "secret"}
KEY = {"access_key_id": "id", "secret_access_key": "secret"}
PLACES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "b2": ("backblaze:bucket", "realm", {"key_id": "id", "application_key": "key", **ONCE}),
    "dropbox": ("dropbox:folder", "endpoint", {"access_token": "token", **ONCE}),
    "gcs": ("gs://bucket", "endpoint", {"anonymous": True, **ONCE}),
    "gdrive": ("gdrive:folder", "endpoint", {**GRANT, **ONCE}),
    "s3": ("s3://bucket", "endpoint", {**KEY, **ONCE}),
}
LOGIN = (
    b"<!DOCTYPE html>\n<html><head><title>Log in to\n the network</title></head>"
    b"<body><p>Hello!<br/></p></body></html>\n"
)
CALLED = "a web page answers, 'Log in to the network'"


def page(status: int) -> Reply:
    return Reply(status, LOGIN, {"Content-Type": "text/html; charset=utf-8"})


def why_not(place: str, address: str, **more: Any) -> str:
    """Return why the place cannot be opened there."""
    url, option, options = PLACES[place]
    with pytest.raises(BackendError) as caught:
        open_place(url, **options, **{option: address, **more}).open()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("place", PLACES)
def test_a_host_that_refuses(place: str, nobody: str) -> None:
    assert why_not(place, f"http://{nobody}").endswith(": Connection refused")


@contextlib.contextmanager
def listening(greet: Callable[[socket.socket], object]) -> Iterator[str]:
    """Yield the https:// address of a server that does no more than `greet` each client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    greet(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("place", PLACES)
def test_a_certificate_of_a_stranger(place: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with listening(lambda client: context.wrap_socket(client, server_side=True)) as address:
        told = why_not(place, address)
    assert "its certificate is not trusted" in told
    assert ("set `cacert`" in told) == (place != "b2")


@pytest.mark.parametrize("place", PLACES)
def test_a_server_without_tls(place: str) -> None:
    with listening(lambda client: client.sendall(b"HTTP/1.1 400 No\r\n\r\n")) as address:
        assert "speaks no TLS" in why_not(place, address)


def test_a_borgstore_server_without_tls() -> None:
    with (
        listening(lambda client: client.sendall(b"HTTP/1.1 400 No\r\n\r\n")) as address,
        pytest.raises(BackendError, match="speaks no TLS"),
    ):
        open_place(f"{address}/store", reconnect_tries=0).open()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("b2", "the answer is no JSON"),
        ("dropbox", "it is not Dropbox that answers"),
        ("gcs", "what it answers is no JSON"),
        ("gdrive", f"Google's sign-in does not answer as it should: {CALLED}"),
        ("s3", "it is not S3 that answers: a web page came"),
    ],
)
def test_a_page_in_place_of_an_answer(place: str, told: str) -> None:
    with ScriptedServer([page(200)] * 9) as server:
        assert told in why_not(place, server.url)


@pytest.mark.parametrize("status", [400, 403, 500])
@pytest.mark.parametrize("place", ["gcs", "gdrive"])
def test_a_page_that_says_no_is_told_by_its_name(place: str, status: int) -> None:
    with ScriptedServer([page(status)] * 9) as server:
        told = why_not(place, server.url)
    assert CALLED in told
    assert "<" not in told
    assert "sign-in;" not in told, "nobody is sent to sign in anew"


@pytest.mark.parametrize("place", sorted(PLACES.keys() - {"b2"}))
def test_the_authority_of_the_settings_counts_before_the_environments(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, ours = trustme.CA(), trustme.CA()
    for name, authority in (("other", other), ("ours", ours)):
        authority.cert_pem.write_to_path(str(tmp_path / name))
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(tmp_path / "other"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("127.0.0.1").configure_cert(context)

    def greet(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True):
            pass

    with listening(greet) as address:
        told = why_not(place, address, cacert=str(tmp_path / "ours"))
    assert "certificate" not in told


def test_what_a_library_logs_shows_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer([Reply(200, b"{" * 99, cut=60)] * 9) as server:
        why_not("b2", server.url)
    assert not [record for record in caplog.records if record.exc_info]
