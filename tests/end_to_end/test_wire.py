"""Every request of the protocol, raw, answered as rest-server answers it.

Each row of `wire_table` goes to rest-server and to ours; the answers and what lies on disk
afterwards are compared. The row's own expectation is checked on rest-server too, so that the table
is known to be right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end import wire_table
from tests.end_to_end.wire_table import APPEND_ONLY, PLAIN, PRIVATE, STORED, Row
from tests.servers import peers
from tests.servers.rest_server import RestServer
from tests.servers.wire import Connection, Response, request

pytestmark = pytest.mark.peers(peers.REST_SERVER)

ROWS = list(wire_table.rows())

Disk = dict[str, bytes]


@dataclass(frozen=True)
class Answer:
    """What one server did with a row."""

    response: Response
    disk: Disk


@pytest.fixture(scope="module")
def pairs(
    tmp_path_factory: pytest.TempPathFactory, server_class: type[RestServer]
) -> Iterator[dict[str, tuple[RestServer, RestServer]]]:
    """For each mode, rest-server and the server under test."""
    users = {"alice": "secret", "bob": "builder"}
    with ExitStack() as running:

        def start(kind: type[RestServer], mode: str) -> RestServer:
            return running.enter_context(
                kind(
                    tmp_path_factory.mktemp("repositories"),
                    users=users if mode == PRIVATE else None,
                    private_repos=mode == PRIVATE,
                    append_only=mode == APPEND_ONLY,
                )
            )

        yield {
            mode: (start(RestServer, mode), start(server_class, mode))
            for mode in (PLAIN, APPEND_ONLY, PRIVATE)
        }


def test_the_table_is_large_and_unambiguous() -> None:
    """At least a hundred requests, each known by one name."""
    assert len(ROWS) >= 100
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_answers_as_rest_server_does(
    row: Row,
    pairs: dict[str, tuple[RestServer, RestServer]],
    server_class: type[RestServer],
) -> None:
    """A client sees the same status, headers and bytes, and the same files are left on disk."""
    theirs, ours = (ask(server, row) for server in pairs[row.mode])
    assert theirs.response.status == row.status, "the table is wrong about rest-server"

    difference = None if server_class is RestServer else row.ours
    if difference is None:
        assert ours.response.status == theirs.response.status
        compare(row, theirs.response, ours.response)
    else:
        assert ours.response.status in difference.statuses, difference.reason
    if difference is None or not difference.disk:
        refused = row.status >= 400
        assert ours.disk == (without_pack_folder(theirs.disk) if refused else theirs.disk)


def without_pack_folder(disk: Disk) -> Disk:
    """Leave out the empty folder that rest-server makes for a pack and then refuses to store."""
    return {
        name: content
        for name, content in disk.items()
        if not re.fullmatch(r"data/[0-9a-f]{2}/", name)
        or any(other.startswith(name) and other != name for other in disk)
    }


def ask(server: RestServer, row: Row) -> Answer:
    """Lay a row's repository out, send the request, and see that the connection goes on or ends."""
    name = f"r{ROWS.index(row)}"
    base = server.folder / "alice" if row.mode == PRIVATE else server.folder
    repository = base / name
    lay_out(repository)
    target = row.target.replace("{repo}", name)
    with Connection(server.address) as connection:
        connection.send(request(row.method, target, row.headers, row.body))
        if row.ends_early:
            connection.half_close()
        response = connection.receive(row.method)
        assert response is not None, "no answer"
        disk = snapshot(repository)
        if not row.ends_early:
            follow_up(connection, response, row)
    return Answer(response, disk)


def follow_up(connection: Connection, first: Response, row: Row) -> None:
    """The next request on the connection gets its own answer, unless the server closed it."""
    headers = [wire_table.ALICE] if row.mode == PRIVATE else []
    connection.send(request("GET", "/alice/nowhere/config", headers))
    second = connection.receive("GET")
    if second is None:
        assert first.closes, "the server hung up without having said so"
    else:
        assert second.status == 404, "an unread body was taken for the next request"
        assert not first.closes


def compare(row: Row, theirs: Response, ours: Response) -> None:
    """Compare what a client goes by; the text of an error is for people."""
    names = {"content-range", "allow"}
    if theirs.status < 300:
        names |= {"content-length", "accept-ranges"}
    is_list = theirs.headers.get("content-type", "").startswith("application/vnd")
    if is_list:
        names |= {"content-type"}
        # A listing is streamed: its length is not known beforehand.
        names -= {"content-length"}
    if row.method == "HEAD" and row.target.count("/") > 2:
        # rest-server tells only with GET that objects have ranges; the config has none.
        names -= {"accept-ranges"}
    if not row.compare_body:
        names -= {"content-length"}
    for name in sorted(names):
        assert header(ours, name) == header(theirs, name), name
    if row.compare_body and theirs.status < 300:
        if is_list:
            assert sorted_list(ours.body) == sorted_list(theirs.body)
        else:
            assert ours.body == theirs.body


def header(response: Response, name: str) -> object:
    """A header's value; the methods of Allow have no order."""
    value = response.headers.get(name)
    if name == "allow" and value is not None:
        return sorted(method.strip() for method in value.split(","))
    return value


def sorted_list(body: bytes) -> list[str]:
    """The entries of a listing, whose order means nothing."""
    return sorted(json.dumps(entry, sort_keys=True) for entry in json.loads(body))


def lay_out(repository: Path) -> None:
    """Make a row's repository; `made` is one that lacks its config."""
    for kind in wire_table.TYPES:
        (repository / kind).mkdir(parents=True)
    (repository / "made").mkdir()
    for path, content in STORED.items():
        (repository / path).parent.mkdir(exist_ok=True)
        (repository / path).write_bytes(content)


def snapshot(repository: Path) -> Disk:
    """Everything below a repository: files with their bytes, folders with a slash."""
    return {
        str(path.relative_to(repository)) + "/" * path.is_dir(): (
            b"" if path.is_dir() else path.read_bytes()
        )
        for path in repository.rglob("*")
    }
