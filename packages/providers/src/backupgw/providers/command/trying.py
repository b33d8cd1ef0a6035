"""`backupgw provider` test and test-cycle: whether a provider can be trusted with a file."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.command import CommandError, Exit, UsageError
from backupgw.runtime.commands.store.output import error_text, json_document, line

from ..base import BaseProvider
from ..moves import failure_of
from ..place_provider import PlaceProvider
from .session import Session, absolute, explained

FRESH = 1 << 20
"""Bytes of the file that test-cycle makes."""


class Failed(Exception):
    """A step of a test failed; the message says which."""


def run(session: Session) -> int:
    """Do what the verb says."""
    if session.arguments.verb == "test":
        return _each(session, _test, session.arguments.providers)
    files = [absolute(path) for path in session.arguments.include]
    for path in files:
        if not path.is_file():
            raise UsageError(f"{path}: is no file")
    return _each(session, lambda s, name: _cycle(s, name, files), session.arguments.providers)


def _each(session: Session, test: Callable[[Session, str], str], names: list[str]) -> int:
    results: list[dict[str, Any]] = []
    for configured in session.chosen(names):
        name, begun = configured.name, time.monotonic()
        note, error = "", ""
        try:
            note = test(session, name)
        except (Failed, CommandError, BackendError) as failure:
            error = error_text(failure)
        record = {
            "provider": name,
            "passed": not error,
            "seconds": round(time.monotonic() - begun, 3),
            "error": error or None,
            "note": note or None,
        }
        results.append(record)
        with session.state(name).changing() as state:
            state["last_test"] = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "passed": not error,
                "error": error or None,
            }
        if not session.json:
            text = f"FAILED: {error}" if error else f"passed{f': {note}' if note else ''}"
            line(f"{name}: {text} ({record['seconds']:.1f} s)")
    if session.json:
        json_document(results)
    passed = sum(1 for each in results if each["passed"])
    if passed == len(results):
        return Exit.DONE
    return Exit.PARTLY if passed else Exit.FAILED


def _test(session: Session, name: str) -> str:
    provider = session.provider(name)
    if session.arguments.create and isinstance(provider, PlaceProvider):
        provider.opening.create_missing = True
    check = getattr(provider, "_validate_config", None)  # where the guide's template has one
    if callable(check) and not check():
        raise Failed("the provider finds its configuration wrong; its log says why")
    try:
        passed = provider.test_connection()
    except Exception as error:  # a provider of somebody else's
        raise Failed(error_text(error)) from error
    if not passed:
        raise Failed(explained(name, failure_of(provider, "the test")))
    return ""


def _cycle(session: Session, name: str, files: list[Path]) -> str:
    provider = session.provider(name)
    with tempfile.TemporaryDirectory(prefix="backupgw-test-cycle-") as folder:
        if not files:
            fresh = Path(folder, "fresh")
            fresh.write_bytes(os.urandom(FRESH))
            files = [fresh]
        for path in files:
            _one_cycle(provider, path, Path(folder, "back"))
        size = sum(path.stat().st_size for path in files)
    return f"{len(files)} file{'s' * (len(files) != 1)}, {size} bytes compared"


def _one_cycle(provider: BaseProvider, path: Path, back: Path) -> None:
    name = f"backupgw-test-cycle-{secrets.token_hex(6)}-{path.name[-100:]}"
    digest = _digest(path)
    if not provider.upload(path, name):
        raise Failed(f"storing {path.name} failed: {failure_of(provider, 'upload')}")
    try:
        sizes = [each["size"] for each in provider.list_files(name) if each["name"] == name]
        if sizes != [path.stat().st_size]:
            raise Failed(f"{path.name} was stored, and is listed as {sizes or 'missing'}")
        if not provider.download(name, back):
            raise Failed(f"fetching {path.name} failed: {failure_of(provider, 'download')}")
        if _digest(back) != digest:
            raise Failed(f"{path.name} came back with another content: this place damages files")
    finally:
        removed = provider.delete(name)
    if not removed:
        raise Failed(f"deleting {name} failed: {failure_of(provider, 'delete')}; it is still there")
    if any(each["name"] == name for each in provider.list_files(name)):
        raise Failed(f"{name} was deleted, and is still listed")


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
