"""Options of places come from a file, the environment or Python: sizes, times and counts are
understood as text on each place alike, and a mistake names the option."""

from __future__ import annotations

from typing import Any

import pytest
from tests.servers import peers

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.errors import BackendURLInvalid

PLACES: dict[str, dict[str, Any]] = {
    "backblaze:bucket-of-mine/path": {"key_id": "id", "application_key": "key"},
    "drime:folder": {"api_key": "key"},
    "dropbox:folder": {"refresh_token": "grant", "app_key": "key"},
    "gdrive:folder": {"refresh_token": "grant", "client_id": "id", "client_secret": "secret"},
    "gs://bucket/path": {"anonymous": "true"},
    "s3://bucket/path": {"access_key_id": "id", "secret_access_key": "secret"},
}
COUNTS = {"backblaze": "threads", "drime": "threads"}


@pytest.mark.parametrize("url", PLACES)
def test_text_is_understood(url: str) -> None:
    count = COUNTS.get(url.partition(":")[0], "connections")
    more: dict[str, Any] = {"part_size": "16 MiB", "timeout": "90 s", count: "4"}
    open_place(url, **PLACES[url], **more)


@pytest.mark.parametrize("url", PLACES)
@pytest.mark.parametrize(
    ("option", "value"),
    [("part_size", "a lot"), ("part_size", 1), ("part_size", None), ("timeout", "soon"),
     ("count", "many"), ("count", 0)],
)  # fmt: skip
def test_a_mistake_names_the_option(url: str, option: str, value: object) -> None:
    if option == "count":
        option = COUNTS.get(url.partition(":")[0], "connections")
    with pytest.raises(BackendURLInvalid, match=option):
        open_place(url, **{**PLACES[url], option: value})


@pytest.mark.parametrize("url", [url for url in PLACES if url.partition(":")[0] not in COUNTS])
def test_authorities_are_a_file(url: str) -> None:
    with pytest.raises(BackendURLInvalid, match="cacert"):
        open_place(url, **PLACES[url], cacert="/nowhere/ca.pem")


SERVERS = {"backblaze": "realm", "dropbox": "endpoint", "gdrive": "endpoint", "gs": "endpoint",
           "s3": "endpoint"}  # fmt: skip


@pytest.mark.parametrize("url", [url for url in PLACES if url.partition(":")[0] in SERVERS])
@pytest.mark.parametrize(
    "server", ["nonsense", "ftp://host", "https://", "https://host:99999", "https://me:pw@host",
               "https://host:abc", "https://host?x", "https://ho st"],
)  # fmt: skip
def test_a_server_is_an_address(url: str, server: str) -> None:
    option = SERVERS[url.partition(":")[0]]
    with pytest.raises(BackendURLInvalid, match=rf"{option}: must be http\(s\)://HOST"):
        open_place(url, **{**PLACES[url], option: server})


def test_the_server_in_an_s3_url_is_an_address() -> None:
    with pytest.raises(BackendURLInvalid, match=r"endpoint: must be http\(s\)://HOST"):
        open_place("s3:https://host:99999/bucket")


@pytest.mark.parametrize("scheme", ["http", "rest"])
@pytest.mark.parametrize(
    ("option", "value"),
    [("timeout", "soon"), ("timeout", -1), ("reconnect_tries", "many"), ("reconnect_wait", -1),
     ("cacert", "/nowhere/ca.pem")],
)  # fmt: skip
def test_a_mistake_about_a_borgstore_server(scheme: str, option: str, value: Any) -> None:
    with pytest.raises(BackendURLInvalid, match=rf"{scheme}: {option}: "):
        open_place(f"{scheme}://host/store", **{option: value})


def test_text_is_understood_of_a_borgstore_server() -> None:
    open_place("http://host/store", timeout="90 s", reconnect_tries="4", reconnect_wait="1 s")


@pytest.mark.parametrize("options", [{}, {"access_token": ""}, {"refresh_token": ""}])
def test_dropbox_wants_a_grant_and_no_empty_one(options: dict[str, Any]) -> None:
    with pytest.raises(BackendURLInvalid, match="refresh_token"):
        open_place("dropbox:folder", **options)


@pytest.mark.peers(peers.RCLONE)
def test_the_spool_of_rclone() -> None:
    open_place("rclone:remote:path", spool="8 MiB")
    for wrong in ("a lot", -1, None):
        with pytest.raises(BackendURLInvalid, match="spool"):
            open_place("rclone:remote:path", spool=wrong)
