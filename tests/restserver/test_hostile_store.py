"""A store in which somebody planted links, pipes and devices: nothing leads out, nothing blocks.

Who can write into the root (another service, a restored archive, the user of a shared folder) must
not make the gateway read or change what lies outside. With `--server rest-server` the links
are followed and the tests fail: they notice. So that such a run harms nobody, whatever a link leads
to that could be written or removed lies in the test's own folder (`link` refuses anything else).
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.restserver.hostile_attack import Attack, only, request
from tests.restserver.hostile_paths import INTRUDER, INTRUDER_ID
from tests.restserver.hostile_play import Player
from tests.restserver.hostile_site import (
    CANARY,
    OUTSIDE_BLOB,
    SENTINEL,
    SENTINEL_ID,
    Site,
    WorkingClient,
    add_blob,
    make_repository,
)
from tests.restserver.hostile_wire import Wire
from tests.servers.rest_server import RestServer

LIST = b"Accept: application/vnd.x.restic.rest.v2"
READ_ONLY_TARGETS = ("/dev/zero", "/proc/self/mem", "/proc/self/environ", "/proc/self/fd/0")
"""Of the machine itself; planted as blobs, which no server opens to write."""

IDS = (OUTSIDE_BLOB.encode(), SENTINEL_ID.encode(), INTRUDER_ID)


@dataclass(frozen=True)
class Plant:
    """What is wrong with a repository. `make` gets the site and the repository's folder.

    `hidden` are the paths in it through which nothing may be seen: they lead out.
    """

    name: str
    make: Callable[[Site, Path], None]
    hidden: tuple[str, ...] = ()


def link(inner: str, target: str) -> Callable[[Site, Path], None]:
    """Replace `inner` by a symbolic link; OUT and ROOT in the target are the absolute folders."""

    def make(site: Site, repo: Path) -> None:
        path = repo / inner if inner else repo
        remove(path)
        resolved = target.replace("OUT", str(site.folder)).replace("ROOT", str(site.root))
        end = Path(os.path.normpath(path.parent / resolved))
        assert end.is_relative_to(site.folder) or str(end) in READ_ONLY_TARGETS
        path.symlink_to(resolved)

    return make


def node(inner: str, kind: int, device: int = 0) -> Callable[[Site, Path], None]:
    def make(_site: Site, repo: Path) -> None:
        remove(repo / inner)
        os.mknod(repo / inner, kind | 0o600, device)

    return make


def bound_socket(inner: str) -> Callable[[Site, Path], None]:
    def make(_site: Site, repo: Path) -> None:
        remove(repo / inner)
        # A socket's path may have 107 bytes: bind it by a short one, then move it.
        with socket.socket(socket.AF_UNIX) as sock:
            before = os.getcwd()
            os.chdir(repo)
            try:
                sock.bind("s")
                os.rename("s", inner)
            finally:
                os.chdir(before)

    return make


def folder(inner: str) -> Callable[[Site, Path], None]:
    def make(_site: Site, repo: Path) -> None:
        remove(repo / inner)
        (repo / inner / "inside").mkdir(parents=True)

    return make


def file(inner: str) -> Callable[[Site, Path], None]:
    def make(_site: Site, repo: Path) -> None:
        path = repo / inner if inner else repo
        remove(path)
        path.write_bytes(SENTINEL)

    return make


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def inner_blob(name: str) -> str:
    return f"data/{name[:2]}/{name}"


BLOB = inner_blob(OUTSIDE_BLOB)
OWN = inner_blob(SENTINEL_ID)
EVERYTHING = ("config", "data/", "keys/", "index/", f"data/{OUTSIDE_BLOB}")
DATA = ("data/", f"data/{OUTSIDE_BLOB}")

LINKS = [
    Plant("repository, absolute", link("", "OUT/outside"), EVERYTHING),
    Plant("repository, relative", link("", "../outside"), EVERYTHING),
    Plant("repository, beside", link("", "../store-beside"), EVERYTHING),
    Plant("repository, to the parent", link("", ".."), EVERYTHING),
    Plant("repository, out and in again", link("", "../store/../outside"), EVERYTHING),
    Plant("repository, dangling", link("", "OUT/new"), EVERYTHING),
    Plant("repository, to itself", link("", "repository--to-itself")),
    Plant("repository, to a file", link("", "OUT/canary"), EVERYTHING),
    Plant("data, absolute", link("data", "OUT/outside/data"), DATA),
    Plant("data, relative", link("data", "../../outside/data"), DATA),
    Plant("data, dangling", link("data", "OUT/new"), DATA),
    Plant("data, to itself", link("data", "data")),
    Plant("keys", link("keys", "OUT/outside/data/" + OUTSIDE_BLOB[:2]), ("keys/",)),
    Plant("locks, dangling", link("locks", "OUT/new"), ("locks/",)),
    Plant("subfolder", link(BLOB[:7], "OUT/outside/" + BLOB[:7]), DATA[1:]),
    Plant("subfolder, dangling", link(BLOB[:7], "OUT/new"), DATA[1:]),
    Plant("subfolder, to itself", link(BLOB[:7], BLOB[5:7])),
    Plant("subfolder, another's", link("data/" + SENTINEL_ID[:2], "OUT/outside/data/ff")),
    Plant("blob, absolute", link(BLOB, "OUT/outside/" + BLOB), DATA[1:]),
    Plant("blob, relative", link(BLOB, "../../../../outside/" + BLOB), DATA[1:]),
    Plant("blob, dangling", link(BLOB, "OUT/new"), DATA[1:]),
    Plant("blob, dangling, not there yet", link(inner_blob(INTRUDER_ID.decode()), "OUT/new")),
    Plant("blob, to itself", link(BLOB, OUTSIDE_BLOB), DATA[1:]),
    Plant("blob, to a folder", link(BLOB, "OUT/outside"), DATA[1:]),
    Plant("blob, to a device", link(BLOB, "/dev/zero"), DATA[1:]),
    Plant("blob, to the server's memory", link(BLOB, "/proc/self/mem"), DATA[1:]),
    Plant("blob, to the server's environment", link(BLOB, "/proc/self/environ"), DATA[1:]),
    Plant("blob, to a descriptor", link(BLOB, "/proc/self/fd/0"), DATA[1:]),
    Plant("config", link("config", "OUT/canary"), ("config",)),
    Plant("config, dangling", link("config", "OUT/new"), ("config",)),
    Plant("config, to itself", link("config", "config"), ("config",)),
    Plant("key", link("keys/" + OUTSIDE_BLOB, "OUT/canary"), ("keys/" + OUTSIDE_BLOB,)),
    Plant("lock", link("locks/" + OUTSIDE_BLOB, "OUT/canary"), ("locks/" + OUTSIDE_BLOB,)),
    Plant("inside: repository", link("", "good")),
    Plant("inside: repository, absolute", link("", "ROOT/good")),
    Plant("inside: blob", link(BLOB, "../" + OWN[5:])),
    Plant("inside: data", link("data", "../good/data")),
    Plant("reserved folder", link(".backupgw", "OUT/outside")),
    Plant("reserved temporary folder", link(".backupgw-tmp", "OUT/outside")),
]

OBJECTS = [
    *(
        Plant(f"{what} as {where}", make(inner), hidden)
        for where, inner, hidden in (
            ("blob", BLOB, DATA[1:]),
            ("config", "config", ("config",)),
            ("key", "keys/" + OUTSIDE_BLOB, ("keys/" + OUTSIDE_BLOB,)),
            ("data", "data", ()),
            ("subfolder", BLOB[:7], ()),
        )
        for what, make in (
            ("pipe", lambda inner: node(inner, stat.S_IFIFO)),
            ("socket", bound_socket),
            ("folder", folder),
            ("file", file),
        )
        if not (what == "folder" and where in ("data", "subfolder"))
        and not (what == "file" and where in ("blob", "config", "key"))
    ),
    Plant("file as repository", file("")),
]

DEVICES = [
    Plant(f"{name} as {where}", node(inner, stat.S_IFCHR, os.makedev(1, minor)), hidden)
    for name, minor in (("zero", 5), ("null", 3), ("full", 7))
    for where, inner, hidden in (("blob", BLOB, DATA[1:]), ("config", "config", ("config",)))
]


def attacks(repo: bytes) -> Iterator[Attack]:
    """Everything that the protocol offers, on everything that may be planted; reads come first."""
    calm = only(200, 206, 400, 403, 404, 405, 409, 416)
    ranged = [b"Range: bytes=0-9"]
    names = [b"config", *(k + b"/" + i for k in (b"data", b"keys", b"locks") for i in IDS)]

    def attack(method: bytes, path: bytes, headers: list[bytes], body: bytes | None) -> Attack:
        target = b"/" + repo + b"/" + path
        label = f"{method.decode()} {path.decode()[:20]} {headers}"
        return Attack(label, request(method, target, headers, body), calm)

    for kind in (b"data", b"keys", b"locks", b"index", b"snapshots"):
        yield attack(b"GET", kind + b"/", [LIST], None)
        yield attack(b"GET", kind + b"/", [], None)
    for name in names:
        yield attack(b"HEAD", name, [], None)
        yield attack(b"GET", name, [], None)
        yield attack(b"GET", name, ranged, None)
    yield attack(b"POST", b"?create=true", [], b"")
    for name in names:
        yield attack(b"POST", name, [], INTRUDER)
        yield attack(b"GET", name, ranged, None)
        yield attack(b"DELETE", name, [], None)
        yield attack(b"POST", name, [], INTRUDER)


def is_seen(address: tuple[str, int], repo: bytes, path: str) -> bool:
    """Whether anything of what lies behind `path` can be had: contents, length or names."""
    with Wire(address) as wire:
        for method in (b"HEAD", b"GET"):
            if path.endswith("/") and method == b"HEAD":
                continue
            wire.send(request(method, b"/" + repo + b"/" + path.encode(), [LIST]))
            answer = wire.response(to_head=method == b"HEAD")
            assert answer is not None
            if answer.status in (200, 206) and answer.body != b"[]":
                return True
    return False


def plant(site: Site, plants: list[Plant]) -> list[tuple[Plant, bytes]]:
    """Make a repository for each plant and spoil it."""
    planted = []
    for each in plants:
        name = "".join(c if c.isalnum() else "-" for c in each.name)
        make_repository(site.root / name, SENTINEL)
        each.make(site, site.root / name)
        planted.append((each, name.encode()))
    return planted


def assault(
    site: Site, server_class: type[RestServer], plants: list[Plant], *, before_start: bool
) -> None:
    planted = plant(site, plants) if before_start else []
    with server_class(site.root) as server:
        address = ("127.0.0.1", server.port)
        player = Player(address)
        problems = []
        with WorkingClient(address) as client:
            planted = planted or plant(site, plants)
            for each, repo in planted:
                seen = [path for path in each.hidden if is_seen(address, repo, path)]
                found = [f"{path} is seen" for path in seen] + player.play_all(attacks(repo))
                problems += [f"{each.name}: {problem}" for problem in found]
        assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:60])
        site.check_outside()
        assert CANARY.decode() not in server.process.output
        client.check()
    site.check_outside()


def test_links_planted_before_the_start_lead_nowhere(
    tmp_path: Path, server_class: type[RestServer]
) -> None:
    assault(Site(tmp_path), server_class, LINKS, before_start=True)


def test_links_planted_while_it_runs_lead_nowhere(
    tmp_path: Path, server_class: type[RestServer]
) -> None:
    assault(Site(tmp_path), server_class, LINKS[::3], before_start=False)


def test_planted_pipes_sockets_and_folders_block_nothing(
    tmp_path: Path, server_class: type[RestServer]
) -> None:
    assault(Site(tmp_path), server_class, OBJECTS, before_start=True)


@pytest.mark.root
def test_planted_devices_are_no_blobs(tmp_path: Path, server_class: type[RestServer]) -> None:
    assault(Site(tmp_path), server_class, DEVICES, before_start=True)


def test_a_hard_link_is_replaced_never_written_through(
    tmp_path: Path, server_class: type[RestServer]
) -> None:
    """The file outside that shares its bytes with a blob keeps them whatever happens to it."""
    site = Site(tmp_path)
    outside = tmp_path / "shared"
    outside.write_bytes(b"the contents of a file outside")
    repo = site.root / "linked"
    make_repository(repo, SENTINEL)
    name = INTRUDER_ID.decode()
    inside = [repo / inner_blob(name), repo / "keys" / name]
    for path in inside:
        path.hardlink_to(outside)
    with server_class(site.root) as server, Wire(("127.0.0.1", server.port)) as wire:
        for kind in (b"data/", b"keys/"):
            for method, body in ((b"POST", INTRUDER), (b"POST", b"wrong"), (b"DELETE", None)):
                wire.send(request(method, b"/linked/" + kind + INTRUDER_ID, body=body))
                answer = wire.response()
                assert answer is not None
                assert answer.status < 500
    assert outside.read_bytes() == b"the contents of a file outside"
    assert not any(path.exists() for path in inside)


def test_a_folder_swapped_for_a_link_during_requests_leads_nowhere(
    tmp_path: Path, server_class: type[RestServer]
) -> None:
    """The classic race: a subfolder is a folder when it is checked and a link when it is used."""
    site = Site(tmp_path)
    repo = site.root / "swapped"
    make_repository(repo, SENTINEL)
    add_blob(repo, INTRUDER)
    folder_path = repo / "data" / OUTSIDE_BLOB[:2]
    trap = repo / "trap"
    trap.symlink_to(site.folder / "outside" / "data" / OUTSIDE_BLOB[:2])
    target = b"/swapped/data/" + OUTSIDE_BLOB.encode()
    statuses = set()
    with server_class(site.root) as server, Wire(("127.0.0.1", server.port)) as wire:
        for number in range(600):
            method = (b"GET", b"DELETE", b"HEAD")[number % 3]
            wire.send(request(method, target))
            # RENAME_EXCHANGE by three renames: folder and link change places while it works.
            os.rename(folder_path, repo / "aside")
            os.rename(trap, folder_path)
            os.rename(repo / "aside", trap)
            answer = wire.response(to_head=method == b"HEAD")
            assert answer is not None
            statuses.add((method, answer.status))
            assert CANARY not in wire.received
    reads = {(method, status) for method in (b"GET", b"HEAD") for status in (403, 404)}
    assert statuses <= reads | {(b"DELETE", status) for status in (200, 403, 404)}, statuses
    site.check_outside()
