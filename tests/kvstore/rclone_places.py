"""Places behind rclone, as the tests make them."""

from __future__ import annotations

import subprocess

from tests.servers import peers

from backupgw.kvstore.backends.rclone import SPOOL, Rclone, from_url

KEY_ID = "AKIDTESTSERVER"
SECRET = "secretKeyWithManyLetters0123456789abcdef"


def place(url: str, spool: int = SPOOL, **parameters: object) -> Rclone:
    """Return a place behind the rclone that the tests have; a picklable factory with `partial`."""
    binary = str(peers.get(peers.RCLONE).path)
    return from_url(f"rclone:{url}", binary=binary, config="/dev/null", spool=spool, **parameters)


def s3_place(endpoint: str, path: str, spool: int = SPOOL) -> Rclone:
    """Return a place in a bucket of an S3 server."""
    return place(
        f":s3:{path}",
        spool,
        provider="Other",
        endpoint=endpoint,
        access_key_id=KEY_ID,
        secret_access_key=SECRET,
        force_path_style=True,
    )


def obscured(password: str) -> str:
    """Return a password as rclone's settings have it."""
    command = [str(peers.get(peers.RCLONE).path), "obscure", password]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def crypt_place(folder: str) -> Rclone:
    """Return a place in a folder that rclone encrypts."""
    remote, password = f":local:{folder}", obscured("a password")
    return place(":crypt:place", remote=remote, password=password)
