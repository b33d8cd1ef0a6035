"""Signed downloads: for whom the Panel has signed, for what, until when, and once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from tests.servers.panel import TOKEN, Backup, Panel

from backupgw.runtime.database import connect, schema, sqlite_url
from backupgw.runtime.threads import Threads
from backupgw.runtime.tokens.database import DatabaseTokens
from backupgw.wingsadapter.downloads import Downloads, DownloadTokens, TokenRefused, label_of
from backupgw.wingsadapter.ignore import NOTHING
from backupgw.wingsadapter.incoming import Refusal
from backupgw.wingsadapter.local_archives import LocalArchives

SERVER = "342dd230-48d3-4b39-a7fe-ba0fb5e62e80"
OTHER = "342dd230-48d3-4b39-a7fe-ba0fb5e62e81"
BACKUP = "a09316f2-c1df-44b9-8244-6c6789eb75a1"
FOREIGN = "a09316f2-c1df-44b9-8244-6c6789eb75a2"
WINGS_OWN = "a09316f2-c1df-44b9-8244-6c6789eb75a3"


class Site:
    """A node with some archives."""

    def __init__(self, folder: Path) -> None:
        url = sqlite_url(folder / "state.sqlite")
        with connect(url) as database:
            schema.migrate(database)
        self.stores = [DatabaseTokens.at(url) for _ in range(2)]
        self.folder = folder / "backups"
        self.archives = LocalArchives(str(self.folder))
        source = folder / "source"
        source.mkdir()
        (source / "world").write_bytes(os.urandom(700_000))
        root = os.open(source, os.O_RDONLY)
        for backup, server in ((BACKUP, SERVER), (FOREIGN, OTHER)):
            self.archives.make(backup, root, NOTHING, label=label_of(server))
        self.archives.make(WINGS_OWN, root, NOTHING)
        os.close(root)

    def get(
        self, query: str, method: str = "GET", store: int = 0
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask a gateway of the node; return status, headers and body."""
        return asyncio.run(self._get(query, method, store))

    async def _get(self, query: str, method: str, store: int) -> tuple[int, dict[str, str], bytes]:
        threads = Threads(2, "test")
        tokens = DownloadTokens(TOKEN, self.stores[store])
        route = Downloads(tokens, self.archives, threads, lambda server: server == SERVER)
        found: list[Any] = []

        async def send(message: Any) -> None:
            found.append(message)

        scope = {"type": "http", "method": method, "query_string": query.encode(), "headers": []}

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        try:
            await route(scope, receive, send)
        except Refusal as refusal:
            return refusal.status, {}, refusal.text.encode()
        finally:
            threads.close()
        headers = {name.decode(): value.decode() for name, value in found[0]["headers"]}
        return found[0]["status"], headers, b"".join(m.get("body", b"") for m in found[1:])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for store in site.stores:
        store.close()


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {
        "iss": "https://panel.example.com",
        "aud": ["https://node.example.com:8080"],
        "jti": "x",
        "iat": now,
        "nbf": now - 300,
        "exp": now + 300,
        "scope": "backup-download",
        "backup_uuid": BACKUP,
        "server_uuid": SERVER,
        "unique_id": "Zx81Kq0PbLm4T7aD",
        "user_uuid": "5",
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not ...}


def token(key: str = TOKEN, algorithm: str = "HS256", **changes: Any) -> str:
    return "token=" + jwt.encode(claims(**changes), key, algorithm)


def test_what_the_panel_signs_is_sent_once(site: Site) -> None:
    with Panel() as panel:
        panel.node = "http://node"
        row = Backup(BACKUP, SERVER, "wings")
        query = panel.download_url(row).partition("?")[2]
    whole = (site.folder / f"{BACKUP}.tar.gz").read_bytes()
    status, headers, body = site.get(query, "HEAD")  # a look does not use it up
    assert (status, headers["content-length"], body) == (200, str(len(whole)), b"")
    status, headers, body = site.get(query)
    assert (status, body) == (200, whole)
    assert headers["content-disposition"] == f'attachment; filename="{BACKUP}.tar.gz"'
    for store in (0, 1):  # nor at another gateway of the node
        assert site.get(query, store=store)[0] == 403


def test_archives_of_wings_and_tokens_of_pterodactyl_are_good(site: Site) -> None:
    assert site.get(token(backup_uuid=WINGS_OWN, scope=...))[0] == 200


def test_two_tokens_of_one_backup_are_two(site: Site) -> None:
    assert site.get(token(unique_id="a" * 16))[0] == 200
    assert site.get(token(unique_id="b" * 16))[0] == 200


def unsigned(header: dict[str, Any], payload: Any, signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return "token=" + ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts)


def signed(header: dict[str, Any], payload: Any) -> str:
    """Signed with the right key, whatever the header says."""
    text = unsigned(header, payload).removeprefix("token=").rpartition(".")[0]
    digest = hmac.new(TOKEN.encode(), text.encode(), hashlib.sha256).digest()
    return f"token={text}." + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


FORGED: dict[str, Callable[[], str]] = {
    "none": lambda: "",
    "empty": lambda: "token=",
    "two": lambda: f"{token()}&{token()}",
    "rubbish": lambda: "token=x",
    "dots": lambda: "token=..",
    "long": lambda: "token=" + "x" * 10_000,
    "unsigned": lambda: unsigned({"alg": "none", "typ": "JWT"}, claims()),
    "unsigned, written otherwise": lambda: unsigned({"alg": "nOnE"}, claims()),
    "without a signature": lambda: unsigned({"alg": "HS256"}, claims()),
    "another key": lambda: token("x" * 64),
    "an empty key": lambda: signed({"alg": "HS256"}, claims())[:-4] + "AAAA",
    "another algorithm": lambda: token(algorithm="HS512"),
    "none, though signed": lambda: signed({"alg": "none"}, claims()),
    "critical": lambda: signed({"alg": "HS256", "crit": ["b64"], "b64": False}, claims()),
    "a list": lambda: signed({"alg": "HS256"}, []),
    "deep": lambda: signed({"alg": "HS256"}, {"a": {"b": [[[[]]]]}}),
    "expired": lambda: token(exp=int(time.time()) - 60),
    "endless": lambda: token(exp=...),
    "for a year": lambda: token(exp=int(time.time()) + 365 * 86_400),
    "no number": lambda: token(exp="soon"),
    "infinite": lambda: token(exp=1e400),
    "later": lambda: token(nbf=int(time.time()) + 600),
    "from the future": lambda: token(iat=int(time.time()) + 600),
    "another scope": lambda: token(scope="file-download"),
    "no text for a scope": lambda: token(scope=None),
    "no backup": lambda: token(backup_uuid=...),
    "no server": lambda: token(server_uuid=...),
    "no unique id": lambda: token(unique_id=...),
    "an empty unique id": lambda: token(unique_id=""),
    "a number": lambda: token(backup_uuid=5),
    "a path": lambda: token(backup_uuid=f"../{BACKUP}"),
    "upper case": lambda: token(backup_uuid=BACKUP.upper()),
    "a comma": lambda: token(backup_uuid=f"{BACKUP},{FOREIGN}"),
    "a line's end": lambda: token(backup_uuid=f"{BACKUP}\n"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_address_gets_nothing(site: Site, kind: str) -> None:
    status, _, body = site.get(FORGED[kind]())
    assert (status, body) == (403, b"the download's address is not valid (any more)")
    assert site.get(token())[0] == 200  # and uses nothing up


def test_every_byte_of_a_token_counts(site: Site) -> None:
    good = token().removeprefix("token=")
    tokens = DownloadTokens(TOKEN, site.stores[0])
    tokens.verify(good, now=time.time())
    for place in range(0, len(good) - 1, 7):  # the last character has bits that mean nothing
        other = "A" if good[place] != "A" else "B"
        with pytest.raises(TokenRefused):
            tokens.verify(good[:place] + other + good[place + 1 :], now=time.time())


@pytest.mark.parametrize(
    "changes",
    [
        {"backup_uuid": FOREIGN},  # another server's archive
        {"server_uuid": OTHER, "backup_uuid": FOREIGN},  # a server that is not of this node
        {"backup_uuid": "a09316f2-c1df-44b9-8244-6c6789eb75ff"},
    ],
)
def test_what_is_not_there_or_not_the_servers_is_404(site: Site, changes: dict[str, str]) -> None:
    assert site.get(token(**changes))[0] == 404


def test_an_archive_that_is_a_link_is_not_sent(site: Site) -> None:
    target = site.folder / f"{BACKUP}.tar.gz"
    target.unlink()
    target.symlink_to("/etc/passwd")
    assert site.get(token())[0] == 404
