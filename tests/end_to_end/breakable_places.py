"""Every kind of place that there is, on a server of its own behind something that breaks on demand.

with site("s3", folder) as place:
    with served(place.options, folder, place.secrets) as repository: …
    place.stall(60)                 # what was asked is answered a minute later
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import peers
from tests.servers.b2_double import KEY, KEY_ID, B2Double
from tests.servers.borg import BorgstoreServer
from tests.servers.double import Double, Fault, Faults
from tests.servers.drime_double import DrimeDouble
from tests.servers.drive_double import DriveDouble
from tests.servers.dropbox_double import DropboxDouble
from tests.servers.faulty_proxy import FaultyProxy
from tests.servers.gcs_double import Bucket, GcsDouble
from tests.servers.http_proxy import faulty
from tests.servers.s3 import Moto, RcloneS3
from tests.servers.sshd import Sshd

STALLED = 2
"""Requests that are held up by one stall."""


@dataclass
class Site:
    """A place that can be broken.

    Attributes:
        options: what `[places.x]` says.
        secrets: environment variables that it refers to.
        stall: holds up what comes for so many seconds, and returns at once.
        stalled: how many requests were held up.
        double: what all requests go through, where the protocol is HTTP.
    """

    options: Mapping[str, object]
    stall: Callable[[float], None]
    stalled: Callable[[], int]
    secrets: Mapping[str, str] = field(default_factory=dict)
    double: Double | None = None


def _on_http(
    options: Mapping[str, object],
    secrets: Mapping[str, str],
    doubles: Sequence[Double],
) -> Site:
    def stall(seconds: float) -> None:
        for double in doubles:
            double.faults = Faults(
                rate=0.5,
                kinds=[Fault.STALL],
                stall=seconds,
                limit=STALLED // len(doubles),
                seed=1,
            )

    def stalled() -> int:
        return sum(double.faults.hit for double in doubles)

    return Site(options, stall, stalled, secrets, doubles[0])


def _s3_options(endpoint: str, key_id: str) -> dict[str, object]:
    return {
        "url": f"s3:{endpoint}/bucket/place",
        "access_key_id": key_id,
        "secret_access_key": {"env": "SECRET"},
    }


@contextlib.contextmanager
def _s3(folder: Path) -> Iterator[Site]:
    (folder / "buckets").mkdir()
    with RcloneS3(folder / "buckets") as server, faulty(server.endpoint) as proxy:
        options = _s3_options(proxy.url, server.key_id)
        yield _on_http({**options, "attempts": 12}, {"SECRET": server.secret}, [proxy])


@contextlib.contextmanager
def _rclone(folder: Path) -> Iterator[Site]:
    del folder
    with Moto() as server, faulty(server.endpoint) as proxy:
        options = {
            "url": "rclone::s3:bucket/place",
            "binary": str(peers.get(peers.RCLONE).path),
            "config": "/dev/null",
            "layers": ["retry"],
            "provider": "Other",
            "endpoint": proxy.url,
            "force_path_style": True,
            "access_key_id": server.key_id,
            "secret_access_key": {"env": "SECRET"},
        }
        yield _on_http(options, {"SECRET": server.secret}, [proxy])


@contextlib.contextmanager
def _borgstore(folder: Path) -> Iterator[Site]:
    with BorgstoreServer(folder / "store") as server, faulty(server.url.rstrip("/")) as proxy:
        yield _on_http({"url": f"{proxy.url}/", "layers": ["retry"]}, {}, [proxy])


@contextlib.contextmanager
def _b2(folder: Path) -> Iterator[Site]:
    del folder
    with B2Double() as double:
        options = {
            "url": "backblaze:backups-of-tests/place",
            "realm": double.url,
            "key_id": KEY_ID,
            "application_key": {"env": "KEY"},
            "layers": ["retry"],
        }
        yield _on_http(options, {"KEY": KEY}, [double])


@contextlib.contextmanager
def _drime(folder: Path) -> Iterator[Site]:
    del folder
    with DrimeDouble() as drime:
        options = {
            "url": "drime:backups/restic",
            "api_url": drime.url,
            "api_key": {"env": "KEY"},
        }
        yield _on_http(options, {"KEY": drime.key}, [drime.api, drime.storage])


@contextlib.contextmanager
def _gdrive(folder: Path) -> Iterator[Site]:
    del folder
    with DriveDouble() as drive:
        options = {
            "url": "gdrive:Backups/restic",
            "endpoint": drive.url,
            "client_id": drive.service.client_id,
            "client_secret": {"env": "SECRET"},
            "refresh_token": {"env": "GRANT"},
        }
        secrets = {"GRANT": drive.service.refresh_token, "SECRET": drive.service.client_secret}
        yield _on_http(options, secrets, [drive])


@contextlib.contextmanager
def _dropbox(folder: Path) -> Iterator[Site]:
    del folder
    with DropboxDouble() as dropbox:
        options = {
            "url": "dropbox:Backups/restic",
            "endpoint": dropbox.url,
            "app_key": dropbox.service.app_key,
            "refresh_token": {"env": "GRANT"},
        }
        yield _on_http(options, {"GRANT": dropbox.service.refresh_token}, [dropbox])


@contextlib.contextmanager
def _gcs(folder: Path) -> Iterator[Site]:
    del folder
    with GcsDouble() as gcs:
        gcs.service.buckets["the-bucket"] = Bucket()
        options = {
            "url": "gs://the-bucket/restic",
            "endpoint": gcs.url,
            "service_account": {"env": "KEY"},
        }
        yield _on_http(options, {"KEY": gcs.service.account(gcs.url)}, [gcs])


@contextlib.contextmanager
def _sftp(folder: Path) -> Iterator[Site]:
    with sftp_behind_a_line(folder) as (options, line):
        timers: list[threading.Timer] = []

        def stall(seconds: float) -> None:
            line.stall()
            timers.append(threading.Timer(seconds, line.go_on))
            timers[-1].start()

        try:
            yield Site(options, stall, lambda: len(timers))
        finally:
            for timer in timers:
                timer.cancel()


@contextlib.contextmanager
def sftp_behind_a_line(
    folder: Path, break_after: Callable[[], int | None] = lambda: None
) -> Iterator[tuple[dict[str, object], FaultyProxy]]:
    """Yield the options of a place on an SFTP server, and the line to it."""
    with (
        Sshd(folder / "sshd") as sshd,
        FaultyProxy(("127.0.0.1", sshd.port), break_after=break_after) as line,
    ):
        (folder / "box").mkdir()
        config = sshd.folder / "through-line"
        block = sshd.config("box", "HostKeyAlias box", "StrictHostKeyChecking no")
        config.write_text(block.replace(f"Port {sshd.port}\n", f"Port {line.port}\n"))
        options: dict[str, object] = {
            "url": f"sftp://box/{folder}/box",
            "ssh_config": str(config),
            "layers": ["retry"],
        }
        yield options, line


SITES: dict[str, Callable[[Path], AbstractContextManager[Site]]] = {
    "sftp": _sftp,
    "s3": _s3,
    "b2": _b2,
    "rclone": _rclone,
    "drime": _drime,
    "gdrive": _gdrive,
    "dropbox": _dropbox,
    "gcs": _gcs,
    "borgstore": _borgstore,
}
