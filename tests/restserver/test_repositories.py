"""Uploads and listings, as a client would notice them, on the disk and the memory backend, with a
limit and mirrored."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import ContentMismatch, ObjectExists, ObjectNotFound
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.stack import LayerSpec
from backupgw.kvstore.registry import open_place
from backupgw.restserver.listing import Listing
from backupgw.restserver.paths import TYPES, Target, parse
from backupgw.restserver.repositories import Outcome, Upload, make_repository


@pytest.fixture(params=["file", "memory", "limited", "mirrored"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    url = "memory:" if request.param == "memory" else f"file://{tmp_path}/place"
    other = {"url": f"file://{tmp_path}/other"}
    layers: dict[str, list[LayerSpec]] = {
        "limited": [{"layer": "quota", "limit": "1 TB"}],
        "mirrored": [{"layer": "mirror", "places": [other], "sync": False}],
    }
    context = {"state_folder": f"{tmp_path}/state", "name": "tried"}
    place = open_place(url, layers=layers.get(request.param, []), context=context)
    place.create()
    with place:
        yield place


def target(path: str) -> Target:
    found = parse(path.encode())
    assert found is not None
    return found


def blob(content: bytes, kind: str = "data") -> Target:
    return target(f"/repo/{kind}/{hashlib.sha256(content).hexdigest()}")


def upload(backend: Backend, to: Target, content: bytes, *, verify: bool = True) -> Outcome:
    attempt = Upload(backend, to, len(content), verify=verify)
    try:
        return attempt.finish([content])
    except BaseException:
        attempt.abort()
        raise


def listed(backend: Backend, path: str, *, sizes: bool = True) -> list[object]:
    listing = Listing(backend, target(path), sizes=sizes)
    pieces = []
    while (piece := listing.next_piece()) is not None:
        pieces.append(piece)
    document = json.loads(b"".join(pieces))
    assert isinstance(document, list)
    return document


def damage(backend: Backend, to: Target, content: bytes) -> None:
    backend.store(to.name, content)


def test_a_repository_has_rest_servers_folders(backend: Backend) -> None:
    make_repository(backend, "repo")
    make_repository(backend, "repo")  # completing one is fine
    assert sorted(item.name for item in backend.list("repo")) == sorted(TYPES)
    assert len(list(backend.list("repo/data"))) == 256


def test_an_upload_is_listed_and_needs_no_repository(backend: Backend) -> None:
    to = blob(b"value")
    assert upload(backend, to, b"value") is Outcome.STORED
    assert listed(backend, "/repo/data/") == [{"name": to.id, "size": 5}]
    assert listed(backend, "/repo/data/", sizes=False) == [to.id]
    with pytest.raises(ObjectNotFound):
        listed(backend, "/repo/index/")


def test_the_same_upload_again_succeeds_and_another_content_does_not(backend: Backend) -> None:
    to = blob(b"value")
    upload(backend, to, b"value")
    assert upload(backend, to, b"value") is Outcome.IDENTICAL
    with pytest.raises(ObjectExists):
        upload(backend, to, b"other")
    with pytest.raises(ObjectExists):
        upload(backend, to, b"other", verify=False)
    assert backend.load(to.name) == b"value"


def test_a_damaged_object_is_replaced_by_a_sound_upload_and_kept_aside(backend: Backend) -> None:
    to = blob(b"value")
    damage(backend, to, b"vaXue")
    assert upload(backend, to, b"value") is Outcome.REPAIRED
    assert backend.load(to.name) == b"value"
    assert listed(backend, "/repo/data/") == [{"name": to.id, "size": 5}]


def test_a_damaged_object_is_not_touched_by_an_upload_that_is_no_better(backend: Backend) -> None:
    to = blob(b"value")
    damage(backend, to, b"vaXue")
    with pytest.raises(ContentMismatch):
        upload(backend, to, b"wrong")
    with pytest.raises(ObjectExists):
        upload(backend, to, b"value", verify=False)
    assert backend.load(to.name) == b"vaXue"


def test_what_does_not_hash_to_its_name_is_not_stored(backend: Backend) -> None:
    for kind in TYPES:
        to = blob(b"value", kind)
        with pytest.raises(ContentMismatch):
            upload(backend, to, b"other")
        assert not backend.info(to.name).exists


def test_a_short_body_is_not_stored(backend: Backend) -> None:
    to = blob(b"value")
    for size in (4, 6):
        attempt = Upload(backend, to, size, verify=True)
        with pytest.raises(ContentMismatch):
            attempt.finish([b"val", b"ue"])
        attempt.abort()
    assert not backend.info(to.name).exists


def test_a_config_is_written_once_and_may_be_empty(backend: Backend) -> None:
    to = target("/repo/config")
    assert upload(backend, to, b"") is Outcome.STORED
    for content in (b"", b"other"):
        with pytest.raises(ObjectExists):
            upload(backend, to, content)
    assert backend.load(to.name) == b""


def test_clients_that_upload_the_same_at_once_all_succeed(backend: Backend) -> None:
    content = bytes(100_000)
    to = blob(content)
    outcomes: list[Outcome] = []
    start = threading.Barrier(8)

    def client() -> None:
        attempt = Upload(backend, to, len(content), verify=True)
        attempt.write([content[:50_000]])
        start.wait()
        outcomes.append(attempt.finish([content[50_000:]]))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(o.name for o in outcomes) == ["IDENTICAL"] * 7 + ["STORED"]
    assert listed(backend, "/repo/data/") == [{"name": to.id, "size": len(content)}]


def test_clients_that_repair_the_same_at_once_all_succeed(backend: Backend) -> None:
    to = blob(b"value")
    damage(backend, to, b"vaXue")
    outcomes: list[Outcome] = []
    start = threading.Barrier(4)

    def client() -> None:
        attempt = Upload(backend, to, 5, verify=True)
        attempt.write([b"va"])
        start.wait()
        outcomes.append(attempt.finish([b"lue"]))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert backend.load(to.name) == b"value"


class _LaterQuarantine(Layer):
    """Lets another client act between the look at a damaged object and its removal."""

    def __init__(self, inner: Backend, meanwhile: Callable[[], None]) -> None:
        super().__init__(inner)
        self._meanwhile = [meanwhile]

    def quarantine(self, name: str) -> str:
        if self._meanwhile:
            self._meanwhile.pop()()
        return self.inner.quarantine(name)


def test_a_repair_never_sets_aside_what_another_client_has_just_repaired(tmp_path: Path) -> None:
    place = PosixFS(str(tmp_path / "place"))
    place.create()
    with place:
        to = blob(b"value")
        damage(place, to, b"vaXue")
        outcomes: list[Outcome] = []
        faster = threading.Thread(target=lambda: outcomes.append(upload(place, to, b"value")))

        def start_the_faster() -> None:
            faster.start()
            # Either it ends here, with its answer out, or it waits for us: both are seen below.
            faster.join(0.5)

        outcomes.append(upload(_LaterQuarantine(place, start_the_faster), to, b"value"))
        faster.join()
        assert sorted(o.name for o in outcomes) == ["IDENTICAL", "REPAIRED"]
        aside = [p for p in (tmp_path / "place/.backupgw-quarantine").rglob("*") if p.is_file()]
        assert [p.read_bytes() for p in aside] == [b"vaXue"]
        assert place.load(to.name) == b"value"


def test_foreign_files_are_not_listed(backend: Backend) -> None:
    to = blob(b"value")
    upload(backend, to, b"value")
    for name in ("data/ab/short", "data/ab/" + "A" * 64, "data/ff/" + to.id, "data/" + to.id):
        backend.store(f"repo/{name}", b"foreign")
    assert listed(backend, "/repo/data/", sizes=False) == [to.id]


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1280, 1281])
def test_a_listing_is_one_document_at_every_length(backend: Backend, count: int) -> None:
    names = [hashlib.sha256(b"%d" % n).hexdigest() for n in range(count)]
    backend.mkdir("repo/index")
    for name in names:
        backend.store(f"repo/index/{name}", b"x")
    assert sorted(map(str, listed(backend, "/repo/index/", sizes=False))) == sorted(names)
