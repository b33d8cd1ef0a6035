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


@pytest.mark.peers(peers.RCLONE)
def test_the_spool_of_rclone() -> None:
    open_place("rclone:remote:path", spool="8 MiB")
    for wrong in ("a lot", -1, None):
        with pytest.raises(BackendURLInvalid, match="spool"):
            open_place("rclone:remote:path", spool=wrong)
