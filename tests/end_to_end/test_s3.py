"""restic's whole life on a place in Ceph's S3 service, through the gateway."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.end_to_end import cloud_place, tree
from tests.servers import peers
from tests.servers.ceph import PROGRAMS, Ceph
from tests.servers.double import Fault, Faults
from tests.servers.http_proxy import faulty
from tests.servers.place_gateway import PlaceGateway
from tests.servers.restic import Restic

BYTES = 24 << 20
"""Of incompressible data: packs of more than one part."""


@pytest.fixture
def files(small_tree: Path) -> Path:
    (small_tree / "noise").write_bytes(random.Random(1).randbytes(BYTES))
    return small_tree


@pytest.mark.root(*PROGRAMS)
@pytest.mark.peers(peers.RESTIC_NEW)
def test_whole_cycle(ceph: Ceph, files: Path, tmp_path: Path) -> None:
    url = f"s3:{ceph.endpoint}/restic/gateway"
    place = {"url": url, "access_key_id": ceph.key_id, "secret_access_key": ceph.secret}
    folder = tmp_path / "gateway"
    folder.mkdir()
    with PlaceGateway(folder, place) as server:
        restic = _restic(server, tmp_path)
        restic.init_there()
        restic.run("backup", ".", directory=files)
        before = tree.describe(files)
        tree.change(files, seed=len(before))
        after = tree.describe(files)
        restic.run("backup", ".", directory=files)
        restic.check()
        first, second = restic.snapshots()
        _restore(restic, first, tmp_path / "first", before)
        restic.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
        assert restic.snapshots() == [second]
        restic.check()
        _restore(restic, "latest", tmp_path / "latest", after)
        said = server.process.output
    assert ceph.uploads("restic") == []
    assert ceph.secret not in said
    keys = ceph.keys("restic", "gateway/mine/")
    assert "gateway/mine/config" in keys
    assert any(key.startswith("gateway/mine/data/") for key in keys)


@pytest.mark.root(*PROGRAMS)
@pytest.mark.peers(peers.RESTIC_NEW)
@pytest.mark.soak
def test_a_fifth_of_the_answers_is_a_failure(ceph: Ceph, files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    folder.mkdir()
    with faulty(ceph.endpoint) as proxy:
        place = {"url": ceph.url("restic/flaky", endpoint=proxy.url), "attempts": 12}
        with PlaceGateway(folder, place) as server:
            restic = _restic(server, tmp_path)
            kinds = [Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.RESET, Fault.LOST, Fault.CUT]
            proxy.faults = Faults(rate=0.2, kinds=kinds)
            restic.run("init")
            restic.run("backup", ".", directory=files)
            assert proxy.faults.hit > 20
            proxy.faults = Faults()
            restic.check()
            _restore(restic, "latest", tmp_path / "restored", tree.describe(files))
    assert not [key for key in ceph.uploads("restic") if "flaky" in key]


@pytest.mark.root(*PROGRAMS)
@pytest.mark.peers(peers.RESTIC_NEW)
@pytest.mark.soak
def test_a_key_that_is_revoked_in_mid_backup(ceph: Ceph, files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    folder.mkdir()

    def set_revoked(revoked: bool) -> None:
        if revoked:
            ceph.revoke_key()
        else:
            ceph.restore_key()

    with faulty(ceph.endpoint) as proxy:
        place = {"url": ceph.url("restic/revoked", endpoint=proxy.url)}
        with PlaceGateway(folder, place) as server:
            cloud_place.withdrawal_in_mid_backup(
                proxy,
                _restic(server, tmp_path),
                files,
                set_revoked,
                lambda call: call.method == "PUT" and "/data/" in call.path,
            )


def _restic(server: PlaceGateway, folder: Path) -> Restic:
    return Restic(peers.get(peers.RESTIC_NEW), server.repository("mine"), folder / "home")


def _restore(restic: Restic, snapshot: str, target: Path, wanted: dict[bytes, tree.Entry]) -> None:
    restic.run("restore", snapshot, "--target", target)
    assert tree.differences(wanted, tree.describe(target)) == []
    tree.remove(target)
