"""Several gateways change one name at once at places that would take it twice: there is one object
by the service's own count, whoever dies in between. They share the state folder of a machine, or a
database."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from backupgw.runtime import settings
from tests.runtime.claiming_gateway import ClaimingGateway, name_of
from tests.servers.b2_double import KEY, KEY_ID, B2Double
from tests.servers.double import Double, Fault, Faults
from tests.servers.drime_double import DrimeDouble
from tests.servers.drime_entries import Switches
from tests.servers.drive_double import FOLDER, DriveDouble
from tests.servers.postgres import Postgres

SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
ROUNDS = 20 if SOAK else 2
SMALL, LARGE = 30_000, 11_000_000
DELAY = 0.15
"""Seconds before the service does anything: two that look at once both see nothing."""
AHEAD = 0.1
"""Seconds by which both are told to begin."""


@dataclass
class Service:
    """A double.

    Attributes:
        options: of the place.
        count: how many objects it has of a name.
        folders: how many folders it has, and how many paths they have.
        doubles: what is between.
    """

    options: Mapping[str, object]
    count: Callable[[str], int]
    folders: Callable[[], tuple[int, int]]
    doubles: tuple[Double, ...]

    def slow(self, delay: float) -> None:
        for double in self.doubles:
            double.delay = delay

    def fail(self, faults: Faults) -> None:
        for double in self.doubles:
            double.faults = faults


@contextlib.contextmanager
def drive() -> Iterator[Service]:
    with DriveDouble() as double:
        files, service = double.service.files, double.service

        def count(name: str) -> int:
            return sum(each.name == name[5:] and not each.trashed for each in files.values())

        def folders() -> tuple[int, int]:
            found = [each for each in files.values() if each.kind == FOLDER and each.parent]
            return len(found), len({(each.parent, each.name) for each in found})

        options = {
            "url": "gdrive:Backups/restic",
            "endpoint": double.url,
            "client_id": service.client_id,
            "client_secret": service.client_secret,
            "refresh_token": service.refresh_token,
        }
        yield Service(options, count, folders, (double,))


@contextlib.contextmanager
def drime() -> Iterator[Service]:
    with DrimeDouble(Switches(refuse_duplicate_folders=False)) as double:

        def count(name: str) -> int:
            tree = double.account.tree()
            return sum(len(sizes) for path, sizes in tree.items() if path.endswith(name))

        def folders() -> tuple[int, int]:
            found = [sizes for sizes in double.account.tree().values() if -1 in sizes]
            return sum(map(len, found)), len(found)

        options = {"url": "drime:backups", "api_url": double.url, "api_key": double.key}
        yield Service(options, count, folders, (double.api, double.storage))


@contextlib.contextmanager
def b2() -> Iterator[Service]:
    with B2Double() as double:

        def count(name: str) -> int:
            return len(double.service.versions("backups-of-tests", f"place/{name}"))

        options = {
            "url": "backblaze:backups-of-tests/place",
            "realm": double.url,
            "key_id": KEY_ID,
            "application_key": KEY,
        }
        yield Service(options, count, lambda: (0, 0), (double,))


SERVICES: dict[str, Callable[[], AbstractContextManager[Service]]] = {
    "drive": drive,
    "drime": drime,
    "b2": b2,
}


DAILY = {("drime", "folder")}
SITES = [
    pytest.param(each, id="-".join(each), marks=[] if each in DAILY else pytest.mark.soak)
    for each in itertools.product(SERVICES, ("folder", "database"))
]


@dataclass
class Site:
    """A service, and two gateways that share a state.

    Attributes:
        config: the settings of both.
    """

    service: Service
    config: Path
    gateways: tuple[ClaimingGateway, ClaimingGateway]

    def answers(self) -> list[str]:
        return sorted(gateway.answer() for gateway in self.gateways)


def _state(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """Return what the gateways share, as `[state]`."""
    if kind == "folder":
        return f'folder = "{folder / "state"}"\n'
    server: Postgres = request.getfixturevalue("postgres")
    url = urlsplit(server.new_database(request.getfixturevalue("migrated_template")))
    without = url._replace(netloc=f"{url.username}@{url.hostname}:{url.port}").geturl()
    return f'database = "{without}"\ndatabase_password = "{unquote(url.password or "")}"\n'


def _configured(service: Service, state: str, folder: Path) -> Path:
    config = folder / "backupgw.toml"
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in service.options.items()]
    config.write_text(f"[state]\n{state}[places.far]\n{''.join(lines)}")
    config.chmod(0o600)
    return config


@pytest.fixture(scope="module", params=SITES)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    kind, shared = request.param
    folder = tmp_path_factory.mktemp("claims")
    with SERVICES[kind]() as service, ExitStack() as stack:
        config = _configured(service, _state(shared, folder, request), folder)
        first = stack.enter_context(ClaimingGateway(config, os.environ))
        second = stack.enter_context(ClaimingGateway(config, os.environ))
        for gateway in (first, second):  # each knows the folders, and has the ledger open
            gateway.tell("store", "first", SMALL)
            assert gateway.answer() in ("stored", "exists")
        yield Site(service, config, (first, second))


@pytest.fixture
def site(running: Site) -> Site:
    running.service.slow(0.0)
    running.service.fail(Faults())
    return running


def sizes() -> list[int]:
    return [SMALL if number % 4 else LARGE for number in range(1, ROUNDS + 1)]


def test_one_name_at_once_is_one_object(site: Site) -> None:
    site.service.slow(DELAY)
    for number, size in enumerate(sizes()):
        seed = f"at once {number}"
        start = time.monotonic() + AHEAD
        for gateway in site.gateways:
            gateway.tell("store", seed, size, at=start)
        assert site.answers() == ["exists", "stored"]
        assert site.service.count(name_of(seed, size)) == 1


def test_a_new_folder_is_one_folder(site: Site) -> None:
    """Two names in a folder that both gateways have to make."""
    site.service.slow(DELAY / 3)
    for number in range(ROUNDS):
        start = time.monotonic() + AHEAD
        for which, gateway in enumerate(site.gateways):
            gateway.tell("store", f"new {number}/{which}", SMALL, at=start)
        assert site.answers() == ["stored", "stored"]
        folders, paths = site.service.folders()
        assert folders == paths


def test_a_removal_and_an_upload_at_once_are_one_after_the_other(site: Site) -> None:
    site.service.slow(DELAY)
    first, second = site.gateways
    for number in range(ROUNDS):
        seed = f"removed {number}"
        start = time.monotonic() + AHEAD
        first.tell("store", seed, SMALL, at=start)
        second.tell("delete", seed, SMALL, at=start + DELAY * (number % 3))
        assert first.answer() == "stored"
        removed = second.answer()
        assert removed in ("deleted", "missing")
        assert site.service.count(name_of(seed, SMALL)) == (0 if removed == "deleted" else 1)


def test_answers_that_are_lost_leave_one_object(site: Site) -> None:
    for number in range(ROUNDS):
        seed = f"lost {number}"
        site.service.fail(
            Faults(1.0, [Fault.LOST], only=lambda scope: scope["method"] == "POST", limit=1)
        )
        start = time.monotonic() + AHEAD
        for gateway in site.gateways:
            gateway.tell("store", seed, SMALL, at=start)
        assert site.answers() == ["exists", "stored"]
        assert site.service.count(name_of(seed, SMALL)) == 1


@pytest.mark.parametrize(
    ("kind", "then"),
    [
        pytest.param(*each, marks=[] if each == ("drive", "store") else pytest.mark.soak)
        for each in itertools.product(SERVICES, ("store", "delete"))
    ],
)
def test_a_gateway_that_is_killed_in_the_middle(
    kind: str, then: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What it had sent arrives later: the next one waits for that."""
    with SERVICES[kind]() as service, ExitStack() as stack:
        config = _configured(service, _state("folder", tmp_path, request), tmp_path)
        other = stack.enter_context(ClaimingGateway(config, os.environ))
        for number in range(ROUNDS // 2):
            _killed_in_the_middle(config, service, other, f"killed {number}", then)


def _killed_in_the_middle(
    config: Path, service: Service, other: ClaimingGateway, seed: str, then: str
) -> None:
    service.slow(0.0)
    service.fail(Faults())
    with ClaimingGateway(config, os.environ) as dying:
        for gateway in (dying, other):
            gateway.tell("store", "before", SMALL)
            gateway.answer()
        sent = threading.Event()
        service.fail(_telling(sent))
        service.slow(0.4)
        dying.tell("store", seed, SMALL)
        assert sent.wait(20)
        dying.kill()
    other.tell(then, seed, SMALL)
    answer = other.answer()
    name = name_of(seed, SMALL)
    if then == "delete":
        assert answer in ("deleted", "missing")
        assert service.count(name) == 0
        other.tell("store", seed, SMALL)
        answer = other.answer()
    assert answer in ("stored", "exists")
    assert service.count(name) == 1


def _telling(sent: threading.Event) -> Faults:
    """Nothing goes wrong; tells of the first request that uploads."""

    def note(scope: Mapping[str, object]) -> bool:
        path = str(scope["path"])
        if scope["method"] == "POST" and "upload" in path and "get_upload" not in path:
            sent.set()
        return False

    return Faults(1.0, only=note)


def test_places_that_need_it_say_so(tmp_path: Path) -> None:
    config = tmp_path / "backupgw.toml"
    far = f'[state]\nfolder = "{tmp_path}/state"\n[places.far]\nurl = "drime:x"\napi_key = "k"\n'
    config.write_text(far)
    place = settings.load(config, serving=()).open_place("far")
    assert place.capabilities.atomic_create
    assert place.capabilities.claimed
    config.write_text(f"{far}claims = false\n")
    assert not settings.load(config, serving=()).open_place("far").capabilities.atomic_create
    config.write_text(f'[places.far]\nurl = "file://{tmp_path}/place"\n')
    assert not settings.load(config, serving=()).open_place("far").capabilities.claimed
