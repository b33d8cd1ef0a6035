"""What a passphrase costs: it is stretched while the place's library is still being imported."""

from __future__ import annotations

import base64
import errno
import json
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.encrypt import KEY_FILE, EncryptLayer, NameStyle
from backupgw.kvstore.layers.encrypt_age import open_under_passphrase, seal_under_passphrase
from backupgw.kvstore.layers.encrypt_stretching import Stretch
from backupgw.kvstore.registry import open_place
from backupgw.providers import place_provider
from backupgw.providers.state import ProviderState
from tests.providers.provider_site import PATIENCE, Site

PASSPHRASE = "a passphrase of some length"
QUICK = 10
"""A work factor that only tests should use."""


class Stretched:
    """Counts what is stretched, by whichever process, and tells whether that had begun when the
    place was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        here = multiprocessing.get_context("fork")
        self._counted = here.Value("i", 0)
        self._begun = here.Event()
        self.waits = False
        """Whether the place is made once the stretching has begun."""
        key = Stretch.key

        def counted(stretch: Stretch, passphrase: str) -> bytes:
            with self._counted.get_lock():
                self._counted.value += 1
            self._begun.set()
            return key(stretch, passphrase)

        monkeypatch.setattr(Stretch, "key", counted)
        monkeypatch.setattr(place_provider, "open_place", self._make)

    @property
    def count(self) -> int:
        return int(self._counted.value)

    def _make(self, *given: Any, **how: Any) -> Any:
        if self.waits:
            assert self._begun.wait(PATIENCE), "the library is imported first"
        return open_place(*given, **how)

    def again(self) -> None:
        self._counted.value = 0
        self._begun.clear()


@pytest.fixture
def stretched(monkeypatch: pytest.MonkeyPatch) -> Stretched:
    return Stretched(monkeypatch)


@pytest.fixture
def folder(site: Site) -> Path:
    """Where an encrypted provider keeps its files, of which there is one."""
    folder = site.folder / "local"
    place = EncryptLayer(
        PosixFS(str(folder)), passphrase=PASSPHRASE, names=NameStyle.READABLE, work=QUICK
    )
    place.create()
    with place:
        place.store("item", b"value")
    assert site.local(encryption_enabled="true", encryption_key=PASSPHRASE) == folder
    return folder


def _state(site: Site) -> Path:
    return site.state / "providers" / "local.json"


def test_the_second_time_it_is_begun_early(site: Site, folder: Path, stretched: Stretched) -> None:
    del folder
    assert site.run("ls", "local") == "item\n"
    assert stretched.count == 1
    stretched.again()
    stretched.waits = True
    assert site.run("ls", "local") == "item\n"
    assert stretched.count == 1
    site.run("sync", "local", site.file("a/b", b"c").parent, "new")
    site.run("show", "local")
    site.run("list")
    assert stretched.count == 2, "what opens no place needs no key"
    back = site.folder / "back"
    site.run("download", "local", "new/b", back)
    assert back.read_bytes() == b"c"


def test_beside_another_thread(site: Site, folder: Path, stretched: Stretched) -> None:
    """Where others run, it is a thread: a process could not be forked safely."""
    del folder
    site.run("ls", "local")
    stretched.again()
    stretched.waits = True
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        assert site.run("ls", "local") == "item\n"
    finally:
        over.set()
        other.join()
    assert stretched.count == 1


def test_a_key_that_was_sealed_anew(site: Site, folder: Path, stretched: Stretched) -> None:
    site.run("ls", "local")
    key = open_under_passphrase((folder / KEY_FILE).read_bytes(), PASSPHRASE)
    (folder / KEY_FILE).write_bytes(seal_under_passphrase(key, PASSPHRASE, work=QUICK + 1))
    before = _state(site).read_bytes()
    stretched.again()
    assert site.run("ls", "local") == "item\n"
    assert stretched.count == 2
    assert _state(site).read_bytes() != before
    stretched.again()
    assert site.run("ls", "local") == "item\n"
    assert stretched.count == 1, "the new one was not remembered"


def test_a_wrong_passphrase(site: Site, folder: Path) -> None:
    site.run("set", "local", "encryption_key", "and quite another one")
    _, first = site.told("ls", "local", status=1)
    assert "the passphrase is wrong" in first
    site.run("set", "local", "encryption_key", PASSPHRASE)
    site.run("ls", "local")
    remembered = _state(site).read_bytes()
    site.run("set", "local", "encryption_key", "and quite another one")
    _, again = site.told("ls", "local", status=1)
    assert again == first
    assert _state(site).read_bytes() == remembered
    site.run("set", "local", "encryption_key", PASSPHRASE)
    assert site.run("ls", "local") == "item\n"
    assert (folder / KEY_FILE).is_file()


@pytest.mark.parametrize(
    "broken",
    ["", "{", "7", '{"known": true, "stretch": 7}']
    + [
        json.dumps({"known": True, "stretch": {"salt": salt, "work": work}})
        for salt, work in (("zz", 10), ("00" * 16, 60), ("00" * 16, -1), ("00" * 16, 11))
    ],
)
def test_a_broken_state(site: Site, folder: Path, broken: str) -> None:
    del folder
    site.run("ls", "local")
    right = json.loads(_state(site).read_bytes())["stretch"]
    _state(site).write_text(broken)
    assert site.run("ls", "local") == "item\n"
    assert json.loads(_state(site).read_bytes())["stretch"] == right


def test_a_state_that_cannot_be_written(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered only to save time fails nothing."""
    del folder
    site.run("ls", "local")
    _state(site).write_text('{"known": true}')

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(ProviderState, "_write", read_only)
    assert site.told("ls", "local") == ("item\n", "")


def test_nothing_secret_is_remembered(site: Site, folder: Path) -> None:
    site.run("ls", "local")
    record = json.loads(_state(site).read_bytes())["stretch"]
    assert record.keys() == {"salt", "work"}
    stretch = Stretch.of_record(record)
    assert stretch is not None
    assert _state(site).stat().st_mode & 0o777 == 0o600
    sealed = (folder / KEY_FILE).read_bytes()
    key = open_under_passphrase(sealed, PASSPHRASE)
    hidden = [PASSPHRASE.encode(), key.strip(), stretch.key(PASSPHRASE)]
    hidden += sealed.splitlines()[2:4]  # the wrapped key and its proof
    for secret in hidden:
        forms = (secret, base64.b64encode(secret).rstrip(b"="), secret.hex().encode())
        for path in site.state.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not [form for form in forms if form in content], path
    assert base64.b64encode(stretch.salt).rstrip(b"=") in sealed  # which anybody can read there
