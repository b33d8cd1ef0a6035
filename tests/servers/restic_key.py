"""A restic repository's key file made cheap to open.

`restic init` tunes scrypt to half a second of CPU, and every command that opens the repository
pays it. Tests run hundreds of commands, so they put the same master key into a key file with a
small scrypt cost. The format is that of restic's doc/design.rst ("Keys, Encryption and MAC").
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

COST = 1024
"""scrypt's N; restic itself chooses 32768."""
MAC_SIZE = 16
NONCE_SIZE = 16
MAX_SCRYPT_MEMORY = 512 << 20


def make_cheap(repository: Path, password: str) -> None:
    """Replace the only key file of a repository's folder by one that opens quickly."""
    (path,) = (repository / "keys").iterdir()
    name, content = _cheap(path.read_bytes(), password)
    cheap = path.with_name(name)
    cheap.touch(mode=0o600)
    cheap.write_bytes(content)
    path.unlink()


def make_cheap_there(url: str, password: str) -> None:
    """The same by requests to the server of a repository, wherever that keeps it.

    Args:
        url: the repository's, without restic's `rest:`.
    """
    keys = f"{url.rstrip('/')}/keys/"
    with httpx.Client(timeout=60, trust_env=False) as client:
        listed = client.get(keys, headers={"Accept": "application/vnd.x.restic.rest.v2"})
        (dear,) = [entry["name"] for entry in listed.raise_for_status().json()]
        name, content = _cheap(client.get(keys + dear).raise_for_status().content, password)
        client.post(keys + name, content=content).raise_for_status()
        client.delete(keys + dear).raise_for_status()


def _cheap(dear: bytes, password: str) -> tuple[str, bytes]:
    """Return the name and the content of a key file for the same master key."""
    key = json.loads(dear)
    master = _open(_derive(password, key), base64.b64decode(key["data"]))
    key["N"] = COST
    key["data"] = base64.b64encode(_seal(_derive(password, key), master)).decode()
    content = json.dumps(key).encode()
    return hashlib.sha256(content).hexdigest(), content


def _derive(password: str, key: dict[str, object]) -> bytes:
    return hashlib.scrypt(
        password.encode(),
        salt=base64.b64decode(str(key["salt"])),
        n=int(str(key["N"])),
        r=int(str(key["r"])),
        p=int(str(key["p"])),
        maxmem=MAX_SCRYPT_MEMORY,
        dklen=64,
    )


def _open(user_key: bytes, sealed: bytes) -> bytes:
    nonce, body, mac = sealed[:NONCE_SIZE], sealed[NONCE_SIZE:-MAC_SIZE], sealed[-MAC_SIZE:]
    Poly1305.verify_tag(_mac_key(user_key, nonce), body, mac)
    return _cipher(user_key, nonce, body)


def _seal(user_key: bytes, plain: bytes) -> bytes:
    nonce = os.urandom(NONCE_SIZE)
    body = _cipher(user_key, nonce, plain)
    return nonce + body + Poly1305.generate_tag(_mac_key(user_key, nonce), body)


def _cipher(user_key: bytes, nonce: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES256(user_key[:32]), modes.CTR(nonce)).encryptor().update(data)


def _mac_key(user_key: bytes, nonce: bytes) -> bytes:
    """Poly1305-AES: r from the key, s the nonce encrypted with k."""
    k, r = user_key[32:48], user_key[48:64]
    block = Cipher(algorithms.AES128(k), modes.ECB()).encryptor().update(nonce)
    return r + block
