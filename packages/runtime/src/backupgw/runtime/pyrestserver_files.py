"""pyrestserver's files of backends, read to be taken over.

Its documents say `backends.toml`, one section a backend; its program writes one file a backend,
`NAME.toml`. Keys and passwords are obscured as rclone obscures them, with another key: AES-256 in
counter mode, a random block in front, URL-safe base64. That hides them from a glance, no more: the
key stands in pyrestserver's source. Whole files may be encrypted by vaultconfig.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .command import CommandError
from .named_places import Table, drime_place, local
from .small_file import read_small_file

_OURS = bytes.fromhex("0a34b62682e9bae989fc36e770382b38f598f3ceff418e241da459fc801c7863")
"""pyrestserver's (config.py)."""

_VAULTCONFIGS = bytes.fromhex("a73b9f2ce15d4a8eb6f4c97a3e915cd28b4fa36e1bc57d9a2fe84ba63cd15e92")
"""vaultconfig's own (obscure.py), which `pyrestserver obscure` uses."""

_BLOCK = 16
_SALT = 16
_ROUNDS = 600_000
_HEADER = "VAULTCONFIG_ENCRYPT_"
_VERSION = "VAULTCONFIG_ENCRYPT_V1:"
_COMMAND_TIMEOUT = 30.0
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Found:
    """A backend that was found.

    Attributes:
        name: what it is called here.
        source: the file.
        table: it as a place, None where that cannot be.
        note: why not, or what the user should know.
    """

    name: str
    source: str
    table: Table | None
    note: str = ""


def found(path: Path | None, environ: Mapping[str, str]) -> Iterator[Found]:
    """Yield the backends of a file, or of all files of a folder.

    Args:
        path: default pyrestserver's folder.
        environ: where vaultconfig's passwords are.

    Raises:
        CommandError: there is no such file.
    """
    if path is None:
        path = Path(environ.get("HOME", "~"), ".config", "pyrestserver")
        if not path.is_dir():
            return
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    for file in files:
        try:
            content = read_small_file(file, _MAX_BYTES).content
        except OSError as error:
            if file == path:
                raise CommandError(f"{file}: cannot be read: {error.strerror}") from error
            yield Found(_name(file.stem), str(file), None, f"it cannot be read: {error.strerror}")
            continue
        try:
            text = _plain(content.decode("utf-8-sig"), file.stem, environ)
            document = tomllib.loads(text)
        except CommandError as error:
            yield Found(_name(file.stem), str(file), None, str(error))
            continue
        except ValueError as error:
            # Not all that it says: it may repeat a line, and that may be a key.
            at = re.search(r"at line \d+", str(error))
            where = f" {at[0]}" if at else ""
            yield Found(_name(file.stem), str(file), None, f"it is not valid TOML{where}")
            continue
        there = [*_backends(document, file)]
        yield from there or [Found(_name(file.stem), str(file), None, "there is no backend in it")]


def _backends(document: dict[str, Any], file: Path) -> Iterator[Found]:
    if "type" in document and not isinstance(document["type"], dict):
        yield _backend(file.stem, document, file)
        return
    for name, table in document.items():
        if isinstance(table, dict):
            yield _backend(name, table, file)


def _backend(name: str, values: dict[str, Any], file: Path) -> Found:
    ours = _name(name)
    note = "" if ours == name else f"it was called {name!r}"
    try:
        return Found(ours, str(file), _place(values), note)
    except CommandError as error:
        return Found(ours, str(file), None, str(error))


def _name(name: str) -> str:
    """Return a name that a place may have."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_") or "backend"


def _place(values: dict[str, Any]) -> Table:
    match values.get("type", "local"):
        case "local":
            path = values.get("path")
            if not isinstance(path, str) or not path:
                raise CommandError("it has no path")
            return local(path)
        case "drime":
            key = values.get("api_key")
            if not isinstance(key, str) or not key:
                raise CommandError("it has no api_key")
            try:
                workspace = int(values.get("workspace_id", 0))
            except (TypeError, ValueError):
                raise CommandError("its workspace_id is no number") from None
            forever = values.get("delete_forever", True)
            return drime_place(
                revealed(key),
                path="",
                workspace=workspace,
                forever=str(forever).lower() not in ("false", "0", "no"),
            )
        case other:
            raise CommandError(f"its type {other!r} is none that pyrestserver has")


def revealed(value: str) -> str:
    """Return what an obscured value hides; one that is not obscured as it is.

    Nothing marks a value as obscured. With the wrong key, or none, the bytes are chance, and those
    are no printable ASCII.
    """
    try:
        data = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return value
    if len(data) <= _BLOCK:
        return value
    for key in (_OURS, _VAULTCONFIGS):
        try:
            text = _counter(key, data[:_BLOCK], data[_BLOCK:]).decode("ascii")
        except UnicodeDecodeError:
            continue
        if text.isprintable():
            return text
    return value


def _counter(key: bytes, start: bytes, data: bytes) -> bytes:
    # Imported late: it takes time, and nothing else here needs it.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    decryptor = Cipher(algorithms.AES(key), modes.CTR(start)).decryptor()
    return decryptor.update(data) + decryptor.finalize()


# -- files that vaultconfig has encrypted


def _plain(text: str, name: str, environ: Mapping[str, str]) -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines or not lines[0].startswith(_HEADER):
        return text
    if lines[0] != _VERSION or len(lines) < 2:
        raise CommandError("it is encrypted in a way that is not known here")
    try:
        sealed = base64.b64decode(lines[1], validate=True)
    except ValueError:
        raise CommandError("it is encrypted, and damaged") from None
    password = _password(name, environ)
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), sealed[:_SALT], _ROUNDS)
    try:
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox
    except ModuleNotFoundError:
        raise CommandError("it is encrypted, which needs PyNaCl: pip install pynacl") from None
    try:
        return SecretBox(key).decrypt(sealed[_SALT:]).decode()
    except (CryptoError, ValueError):
        raise CommandError("it is encrypted, and the password is another one") from None


def _password(name: str, environ: Mapping[str, str]) -> str:
    own = f"VAULTCONFIG_PASSWORD_{name.upper()}"
    for variable in (own, "VAULTCONFIG_PASSWORD"):
        if password := environ.get(variable):
            return password
    if command := environ.get("VAULTCONFIG_PASSWORD_COMMAND"):
        try:
            done = subprocess.run(
                shlex.split(command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_COMMAND_TIMEOUT,
                env={**os.environ, **environ},
            )
        except (OSError, ValueError, subprocess.TimeoutExpired):
            # Not chained: the exception carries what the command printed.
            raise CommandError("VAULTCONFIG_PASSWORD_COMMAND could not be run") from None
        if done.returncode == 0 and (password := done.stdout.decode(errors="replace").strip()):
            return password
        raise CommandError("VAULTCONFIG_PASSWORD_COMMAND gave no password")
    raise CommandError(f"it is encrypted; set {own} or VAULTCONFIG_PASSWORD to its password")
