"""Each provider, configured for a server of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from backupgw.providers import PlaceProvider, create
from tests.kvstore.b2_places import BUCKET
from tests.kvstore.sftp.places import HOST, settings
from tests.kvstore.signed_in.told_doubles import options_of
from tests.servers import peers
from tests.servers.b2_double import KEY, KEY_ID, B2Double
from tests.servers.double_process import DoubleProcess
from tests.servers.drime_process import DrimeProcess
from tests.servers.drive_double import DriveDouble
from tests.servers.dropbox_double import DropboxDouble
from tests.servers.gcs_double import GcsDouble
from tests.servers.s3 import RcloneS3, S3Server
from tests.servers.sshd import Sshd

Config = dict[str, Any]


def s3_config(server: S3Server, endpoint: str | None = None) -> Config:
    """Return the configuration of a bucket on a server."""
    return {
        "endpoint": endpoint or server.endpoint,
        "container": "home",
        "access_key": server.key_id,
        "secret_key": server.secret,
    }


@contextmanager
def _local(folder: Path) -> Iterator[Config]:
    yield {"container": str(folder / "nas")}


@contextmanager
def _s3(folder: Path) -> Iterator[Config]:
    with RcloneS3(folder) as server:
        yield s3_config(server)


@contextmanager
def _sftp(folder: Path) -> Iterator[Config]:
    with Sshd(folder / "sshd") as sshd:
        yield {
            "host": HOST,
            "ssh_config": str(settings(sshd, "plain")),
            "container": str(folder / "there"),
        }


@contextmanager
def _backblaze(_: Path) -> Iterator[Config]:
    with DoubleProcess(B2Double) as double:
        yield {
            "container": BUCKET,
            "application_key_id": KEY_ID,
            "application_key": KEY,
            "realm": double.url,
        }


@contextmanager
def _signed_in(make: Callable[[], Any], _: Path) -> Iterator[Config]:
    with DoubleProcess(make) as double:
        yield double.tell(options_of)


@contextmanager
def _drime(_: Path) -> Iterator[Config]:
    with DrimeProcess() as double:
        yield {"api_url": double.url, "api_key": double.key}


@contextmanager
def _rclone(folder: Path) -> Iterator[Config]:
    config = folder / "rclone.conf"
    config.write_text("[disk]\ntype = local\n")
    yield {
        "container": f"disk:{folder}/remote",
        "config_file": str(config),
        "program": str(peers.get(peers.RCLONE).path),
    }


SERVERS: dict[str, Callable[[Path], Any]] = {
    "local": _local,
    "aws_s3": _s3,
    "sftp": _sftp,
    "backblaze": _backblaze,
    "dropbox": partial(_signed_in, DropboxDouble),
    "drime": _drime,
    "google_cloud_storage": partial(_signed_in, GcsDouble),
    "google_drive": partial(_signed_in, DriveDouble),
    "rclone": _rclone,
}


@contextmanager
def running(name: str, folder: Path, **more: Any) -> Iterator[PlaceProvider]:
    """Yield a provider on its server; parts of files are small."""
    with ExitStack() as stack:
        config = stack.enter_context(SERVERS[name](folder))
        chunk = 8 << 20 if name in ("dropbox", "drime") else 5 << 20
        made = create(name, {"retry_delay": 0.1, "upload_chunk_size": chunk, **config, **more})
        assert isinstance(made, PlaceProvider)
        yield stack.enter_context(made)
