"""Drime over TLS, as the live service is: certificates are looked at, and values are whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kvstore.drime.places import PART, place, put
from tests.servers.double import Fault, Faults
from tests.servers.drime_double import DrimeDouble
from tests.servers.tls import Certificate

from backupgw.kvstore.backends import drime_requests
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.conformance import values

NAME = "data/ab/" + "0" * 64


@pytest.fixture
def drime(certificate: Certificate) -> Iterator[DrimeDouble]:
    with DrimeDouble(certificate=certificate) as drime:
        yield drime


@pytest.fixture
def there(
    drime: DrimeDouble, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backend]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.authority))
    made = place(drime.url, drime.key, attempts=10, first_pause=0.01)
    made.create()
    with made:
        yield made


@pytest.mark.parametrize("size", [0, 20_000, 3 * PART + 5])
def test_what_is_stored_is_read(there: Backend, size: int) -> None:
    with there.open_writer(NAME, size=size, if_absent=True) as writer:
        for piece in values.stream(size):
            writer.write(piece)
    assert there.hash(NAME) == values.stream_hash(size)
    assert [item.size for item in there.list("data/ab")] == [size]
    there.delete(NAME)
    assert [*there.list("data/ab")] == []


def test_ranges_and_links(drime: DrimeDouble, there: Backend) -> None:
    value = values.make(1, 600_000)
    put(there, NAME, value)
    for start in (0, 5, 300_000, 599_000):
        assert there.load(NAME, offset=start, size=1000) == value[start : start + 1000]
    assert drime.counts()["download"] == 1


def test_broken_connections_are_made_anew(drime: DrimeDouble, there: Backend) -> None:
    kinds = (Fault.RESET, Fault.LOST, Fault.CUT, Fault.UNAVAILABLE)
    drime.api.faults = Faults(rate=0.2, kinds=kinds, seed=1)
    drime.storage.faults = Faults(rate=0.2, kinds=kinds, seed=2)
    for number in range(40):
        put(there, f"data/ab/{number}", values.make(number, 100 + 1000 * number))
    drime.restart()
    for number in range(40):
        assert there.load(f"data/ab/{number}") == values.make(number, 100 + 1000 * number)
    assert drime.api.faults.hit > 10


@pytest.mark.parametrize("proxies", [{}, {"ftp": "http://127.0.0.1:9"}], ids=["straight", "httpx"])
def test_a_stranger_is_not_believed(
    drime: DrimeDouble, monkeypatch: pytest.MonkeyPatch, proxies: dict[str, str]
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setattr(drime_requests, "getproxies", lambda: proxies)
    made = place(drime.url, drime.key, attempts=2, first_pause=0.01)
    with pytest.raises(BackendError, match=r"is not trusted .*SSL_CERT_FILE") as caught:
        made.open()
    assert drime.key not in str(caught.value)
    assert not drime.api.calls.count(), "nobody got the key"
