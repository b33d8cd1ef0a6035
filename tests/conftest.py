"""What every test shares: which tests run here, and the programs that they run against.

A test marked `peers` needs programs of others (all four, or those named: `peers("rclone")`), one
marked `root` needs root (and the programs named: `root("strace")`). Where these are missing the
test is left out, with the reason printed; with CI=true it fails instead. `soak` tests exist only
under BACKUPGW_SOAK=1.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import peers
from tests.servers.ceph import Ceph
from tests.servers.gateway import Gateway
from tests.servers.rest_server import RestServer
from tests.servers.tls import Certificate, make_certificate

# A server of one process starts in half the time. What several workers of one share is tested with
# --workers; how many there are by default, in tests/restserver/test_workers.py.
os.environ.setdefault("BACKUPGW_REST__WORKERS", "1")

IN_CI = os.environ.get("CI") == "true"
SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))

# A test that asks a server waits for it as long as for anything: five seconds, as httpx has them,
# can pass on a machine that has much to do. What is ours sets its own.
for part in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, part, 60.0)

pytest_plugins = ["tests.last_guard", "tests.sharing_out"]

SERVERS: dict[str, type[RestServer]] = {"backupgw": Gateway, "rest-server": RestServer}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("backupgw")
    group.addoption(
        "--server",
        choices=SERVERS,
        default="backupgw",
        help="the server under test; rest-server shows that a test itself is right",
    )
    group.addoption(
        "--peer-less",
        action="store_true",
        help="leave out what needs root or the programs of others, as on a bare machine",
    )


def pytest_configure(config: pytest.Config) -> None:
    if IN_CI and config.getoption("--peer-less"):
        raise pytest.UsageError("with CI=true nothing may be left out: --peer-less is refused")
    # What a gateway keeps of itself without being told where, root's too, goes with the tests.
    state = tempfile.mkdtemp(prefix="backupgw-state-")
    config.add_cleanup(lambda: shutil.rmtree(state, ignore_errors=True))
    os.environ["XDG_STATE_HOME"] = state


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if SOAK:
        return
    soaking = [item for item in items if item.get_closest_marker("soak")]
    if soaking:
        config.hook.pytest_deselected(items=soaking)
        items[:] = [item for item in items if item not in soaking]


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = _missing(item)
    if reason is None:
        return
    if IN_CI:
        pytest.fail(f"nothing may be left out with CI=true: {reason}", pytrace=False)
    pytest.skip(f"left out: {reason}")


def _missing(item: pytest.Item) -> str | None:
    """Why a test cannot run here, or None when it can."""
    bare = bool(item.config.getoption("--peer-less"))
    for marker in item.iter_markers("peers"):
        for name in marker.args or peers.ALL:
            if bare:
                return f"{name}, because of --peer-less"
            try:
                peers.get(name)
            except LookupError as error:
                return str(error)
    for marker in item.iter_markers("root"):
        if bare:
            return "root, because of --peer-less"
        if os.geteuid() != 0:
            return "root is missing"
        for program in marker.args:
            if shutil.which(program, path=SYSTEM_PATH) is None:
                why = peers.load().missing.get(program, "run `make peers`")
                return f"{program} is missing: {why}"
    return None


@pytest.fixture(scope="session")
def server_class(pytestconfig: pytest.Config) -> type[RestServer]:
    """The server under test: ours, unless --server names the reference."""
    return SERVERS[pytestconfig.getoption("--server")]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for loopback, and the authority that clients are to trust."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """Ceph's S3 service. Who stops it starts it again."""
    folder = tmp_path_factory.mktemp("ceph")
    with Ceph(folder / "ceph") as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    """An empty folder for a server's repositories."""
    folder = tmp_path / "repositories"
    folder.mkdir(mode=0o700)
    return folder
