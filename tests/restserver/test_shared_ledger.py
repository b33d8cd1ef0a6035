"""One ledger for several places: what is stored at the one is no use of the other's limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.ledger import Amount, Limit, LimitExceeded, SQLiteLedger
from backupgw.restserver.limits import Limits
from backupgw.restserver.quota import Naming, RepositoryQuota
from backupgw.restserver.quota import naming as naming_of
from backupgw.runtime.settings import load

OBJECT = "ann/data/00/" + "0" * 64
ANOTHER = "ann/data/00/" + "0" * 63 + "1"
LIMITS = Limits(Limit(1000), users=((("*",), Limit(600)),))


def place() -> Memory:
    backend = Memory()
    backend.create()
    return backend


@contextmanager
def served(
    backend: Memory, ledger: Path, name: str, limits: Limits = LIMITS
) -> Iterator[RepositoryQuota]:
    """A place as a gateway serves it: made ready, then open."""
    limited = RepositoryQuota(backend, SQLiteLedger(str(ledger)), limits, Naming(name))
    limited.prepare(count=False)
    limited.ledger.open()
    with closing(limited.ledger), limited:
        yield limited


def used(limited: RepositoryQuota) -> dict[str, Amount]:
    return {account: usage.used for account, usage in limited.usages() if usage.used}


def test_places_that_share_a_ledger_have_accounts_of_their_own(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    first, second = place(), place()
    with served(first, ledger, "first") as one, served(second, ledger, "second") as other:
        one.store(OBJECT, bytes(500))
        other.store(OBJECT, bytes(550))
        with pytest.raises(LimitExceeded, match=r"^first/user:ann: the limit of 600"):
            one.store(ANOTHER, bytes(200))
        assert {usage.bytes for usage in used(one).values()} == {500}
        assert {usage.bytes for usage in used(other).values()} == {550}
        assert set(used(one)) == {"server", "user:ann", "repository:ann"}
        # Changing the one's limits leaves the other's alone.
        one.limit(Limits(Limit(5000), users=((("*",), Limit(5000)),)))
        one.store(ANOTHER, bytes(2000))
        with pytest.raises(LimitExceeded, match=r"^second/user:ann: the limit of 600"):
            other.store(ANOTHER, bytes(200))


def test_accounts_without_a_place_are_counted_anew(tmp_path: Path) -> None:
    """Ledgers of earlier versions held one set of accounts for all places that shared them."""
    ledger = tmp_path / "ledger"
    backend = place()
    with served(backend, ledger, "") as before:
        before.store(OBJECT, bytes(500))
    with served(backend, ledger, "main") as after:
        assert used(after) == dict.fromkeys(
            ("server", "user:ann", "repository:ann"), Amount(500, 1)
        )
        left = {usage.scope: usage.used for usage in after.ledger.usages() if usage.used}
        assert set(left) == {f"main/{account}" for account in used(after)}
        after.delete(OBJECT)
    with served(backend, ledger, "main", Limits(Limit(1000))) as together:
        together.store(OBJECT, bytes(900))
        assert used(together) == {"server": Amount(900, 1)}


def test_only_a_ledger_for_several_places_needs_their_names(tmp_path: Path) -> None:
    """The one beside the repositories is theirs, whatever `--path` or the settings call them."""
    config = tmp_path / "backupgw.toml"

    def names(text: str) -> Naming:
        config.write_text(f'[places.main]\nurl = "file:///srv/x"\n[rest]\nplace = "main"\n{text}')
        return naming_of(load(config))

    assert names("") == Naming()
    assert names('ledger = "/var/lib/accounts"\n') == Naming("main")
    assert names('[state]\ndatabase = "postgresql://db/backupgw"\n') == Naming("main")
