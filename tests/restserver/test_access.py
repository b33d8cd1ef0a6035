"""Who a request comes from when a proxy says so, and what a user may do."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from backupgw.restserver.access import Access
from backupgw.restserver.paths import Target, parse
from backupgw.restserver.refusals import Refusal
from backupgw.runtime.authorisation import Principal


def scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http", "headers": list(headers)}


def target(path: str) -> Target:
    found = parse(path.encode())
    assert found is not None
    return found


PROXY = Access(None, user_header=b"x-user")


def test_the_proxys_header_names_the_user() -> None:
    assert PROXY.known(scope((b"x-user", b"alice"), (b"host", b"x"))) == Principal("alice")


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"x-user", b""),),
        ((b"x-user", b"admin"), (b"x-user", b"alice")),
        ((b"x-user", b"\xff"),),
        ((b"authorization", b"Basic YWxpY2U6"),),
    ],
)
def test_a_missing_doubled_or_broken_header_is_nobody(
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    with pytest.raises(Refusal) as refused:
        PROXY.known(scope(*headers))
    assert refused.value.status == 401


def test_the_header_is_believed_from_trusted_proxies_alone() -> None:
    networks = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "fd00::/8")))
    access = Access(None, user_header=b"x-user", proxies=networks)
    asked = scope((b"x-user", b"alice"))
    for trusted in (("10.1.2.3", 5), ("fd00::1", 5), None):  # None: a unix socket
        assert access.known({**asked, "client": trusted}) == Principal("alice")
    for stranger in (("192.168.0.1", 5), ("fe80::1", 5)):
        with pytest.raises(Refusal) as refused:
            access.known({**asked, "client": stranger})
        assert refused.value.status == 401


def test_a_certificate_names_the_user() -> None:
    access = Access(None, certificates=True)
    shown = {**scope(), "extensions": {"tls": {"client_common_name": "laptop"}}}
    assert access.known(shown) == Principal("laptop")
    nothings: list[dict[str, Any]] = [{}, {"tls": {}}, {"tls": {"client_common_name": None}}]
    for nothing in nothings:
        with pytest.raises(Refusal) as refused:
            access.known({**scope(), "extensions": nothing})
        assert refused.value.status == 401


def test_private_repositories_are_below_the_users_name() -> None:
    access = Access(None, user_header=b"x-user", private=True)
    access.check(Principal("alice"), "GET", target("/alice/config"))
    access.check(Principal("alice"), "POST", target("/alice/laptop/"))
    for path in ("/bob/config", "/config", "/", "/alicebob/config", "/Alice/config"):
        with pytest.raises(Refusal):
            access.check(Principal("alice"), "GET", target(path))
    with pytest.raises(Refusal):
        access.check(Principal(""), "GET", target("/config"))


def test_append_only_deletes_locks_alone() -> None:
    access = Access(None, append_only=True)
    access.check(Principal(""), "DELETE", target(f"/r/locks/{'0' * 64}"))
    access.check(Principal(""), "POST", target(f"/r/data/{'0' * 64}"))
    for path in (f"/r/data/{'0' * 64}", f"/r/snapshots/{'0' * 64}", "/r/config"):
        with pytest.raises(Refusal) as refused:
            access.check(Principal(""), "DELETE", target(path))
        assert refused.value.status == 403
