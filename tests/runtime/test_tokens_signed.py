"""Signed tokens: what is forged, late, early, for others or used before is refused."""

import base64
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from backupgw.runtime.authorisation import Scope
from backupgw.runtime.database import sqlite_url
from backupgw.runtime.secrets import Secret
from backupgw.runtime.settings import SettingsError, load
from backupgw.runtime.settings_tokens import KeySettings, TokenSettings
from backupgw.runtime.tokens import DatabaseTokens, TokenRefused
from backupgw.runtime.tokens.signed import SignedTokens, from_settings, load_key

NOW = 1_800_000_000.0
SECRET = "0123456789abcdef" * 4
PRIVATE = ed25519.Ed25519PrivateKey.generate()
PRIVATE_PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC_PEM = (
    PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
)
HS = KeySettings(id="h", algorithm="HS256", secret=Secret(SECRET))
ED = KeySettings(id="e", algorithm="EdDSA", secret=Secret(PRIVATE_PEM))
ED_PUBLIC = KeySettings(id="e", algorithm="EdDSA", public=PUBLIC_PEM)
ALLOW, ON = ["append"], ["repository:default/ann"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DatabaseTokens]:
    store = DatabaseTokens.at(sqlite_url(tmp_path / "state.sqlite3"))
    yield store
    store.close()


def signed(store: DatabaseTokens, *keys: KeySettings, **options: Any) -> SignedTokens:
    return SignedTokens([load_key(key) for key in keys], TokenSettings(**options), store)


def issue(tokens: SignedTokens, **options: Any) -> str:
    return tokens.issue("ann", ALLOW, ON, **{"lifetime": 600, "now": NOW, **options})


def forged(key: Any = SECRET, algorithm: str = "HS256", kid: Any = "h", **changes: Any) -> str:
    """A token that differs from a good one as told; None takes a claim away."""
    claims = {"iss": "backupgw", "aud": "backupgw", "sub": "ann", "exp": int(NOW) + 600}
    claims |= {"jti": "j", "allow": ALLOW, "on": ON, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims, key, algorithm, headers=headers)


def handmade(header: dict[str, Any], claims: dict[str, Any], key: bytes | None) -> str:
    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    signed = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    mac = b"" if key is None else hmac.digest(key, signed, "sha256")
    return (signed + b"." + part(mac)).decode()


@pytest.mark.parametrize("key", [HS, ED])
def test_what_was_issued_is_verified(store: DatabaseTokens, key: KeySettings) -> None:
    tokens = signed(store, key)
    claims = tokens.verify(issue(tokens, extra={"server": "s1"}), now=NOW + 1)
    assert claims.principal.user == "ann"
    assert claims.principal.scope == Scope.parse(ALLOW, ON)
    assert claims.extra == {"server": "s1"}
    assert claims.expires == NOW + 600


def test_a_gateway_with_the_public_key_verifies_and_cannot_sign(store: DatabaseTokens) -> None:
    verifier = signed(store, ED_PUBLIC)
    assert verifier.verify(issue(signed(store, ED)), now=NOW).principal.user == "ann"
    with pytest.raises(ValueError, match="can sign"):
        issue(verifier)


def test_the_forger_of_these_tests_makes_good_tokens_otherwise(store: DatabaseTokens) -> None:
    assert signed(store, HS).verify(forged(), now=NOW).principal.user == "ann"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (forged(key="x" * 64), "Signature"),
        (forged(kid=None), "no key"),
        (forged(kid="other"), "no key"),
        (forged(kid="e"), "algorithm"),
        (forged(algorithm="HS512"), "algorithm"),
        (forged(PRIVATE, "EdDSA", "h"), "algorithm"),
        (forged(exp=None), "exp"),
        (forged(aud=None), "aud"),
        (forged(iss=None), "iss"),
        (forged(sub=None), "sub"),
        (forged(sub=""), "sub"),
        (forged(aud="other"), "udience"),
        (forged(iss="other"), "ssuer"),
        (forged(exp=int(NOW) - 31), "expired"),
        (forged(exp=int(NOW) + 86_400 + 31), "max_lifetime"),
        (forged(nbf=int(NOW) + 31), "not good yet"),
        (forged(iat=int(NOW) + 31), "not good yet"),
        (forged(exp=float("inf")), "no time"),
        (forged(exp=float("nan")), "no time"),
        (forged(exp=True), "no time"),
        (forged(exp="1900000000"), "no time"),
        (forged(jti="j" * 300), "jti"),
        (forged(allow="append"), "lists"),
        (forged(allow=["everything"]), "no action"),
        (forged(on=["everything"]), "no pattern"),
        (forged(once=True), "once"),
        ("", "not a"),
        ("a.b.c", "not a"),
        ("x" * 9000, "too long"),
    ],
)
def test_whatever_is_wrong_with_a_token_it_is_refused(
    store: DatabaseTokens, text: str, why: str
) -> None:
    with pytest.raises(TokenRefused, match=why):
        signed(store, HS, ED).verify(text, now=NOW)


CLAIMS = {"iss": "backupgw", "aud": "backupgw", "sub": "ann", "exp": NOW + 600}


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None])
@pytest.mark.parametrize("kid", ["h", "e"])
def test_a_token_without_a_signature_is_refused(
    store: DatabaseTokens, algorithm: str | None, kid: str
) -> None:
    text = handmade({"typ": "JWT", "alg": algorithm, "kid": kid}, CLAIMS, None)
    with pytest.raises(TokenRefused):
        signed(store, HS, ED).verify(text, now=NOW)


def test_a_public_key_is_no_shared_secret(store: DatabaseTokens) -> None:
    for key in (PUBLIC_PEM.encode(), PRIVATE.public_key().public_bytes_raw()):
        text = handmade({"alg": "HS256", "kid": "e"}, CLAIMS, key)
        with pytest.raises(TokenRefused, match="algorithm"):
            signed(store, ED_PUBLIC).verify(text, now=NOW)
        text = handmade({"alg": "EdDSA", "kid": "e"}, CLAIMS, key)
        with pytest.raises(TokenRefused):
            signed(store, ED_PUBLIC).verify(text, now=NOW)
    as_secret = KeySettings(id="h", algorithm="HS256", secret=Secret(PUBLIC_PEM))
    with pytest.raises(ValueError, match="PEM"):
        load_key(as_secret)


@pytest.mark.parametrize(
    "more",
    [
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"kid": []},
    ],
)
def test_headers_that_ask_for_more_are_refused(store: DatabaseTokens, more: dict[str, Any]) -> None:
    good = {"alg": "HS256", "kid": "h"}
    tokens = signed(store, HS)
    assert tokens.verify(handmade(good, CLAIMS, SECRET.encode()), now=NOW).principal.user == "ann"
    with pytest.raises(TokenRefused):
        tokens.verify(handmade(good | more, CLAIMS, SECRET.encode()), now=NOW)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda b: b.decode("latin-1"))))
def test_nonsense_is_refused_and_nothing_worse(text: str) -> None:
    store = DatabaseTokens.at("sqlite:///unused")
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"h"}').decode()
    for candidate in (text, f"{header}.{text}", f"{header}.{text}.{text}", text + "." + text):
        with pytest.raises(TokenRefused):
            signed(store, HS).verify(candidate, now=NOW)


def test_a_token_for_once_is_good_once_also_beside_another_gateway(
    store: DatabaseTokens, tmp_path: Path
) -> None:
    tokens = signed(store, HS)
    text = issue(tokens, once=True)
    other_store = DatabaseTokens.at(sqlite_url(tmp_path / "state.sqlite3"))
    other = signed(other_store, HS)
    with pytest.raises(TokenRefused, match="once"):
        tokens.verify(text, now=NOW)
    assert other.verify_once(text, now=NOW).principal.user == "ann"
    for when in (NOW, NOW + 600, NOW + 629):
        with pytest.raises(TokenRefused, match="before"):
            tokens.verify_once(text, now=when)
        store.spend("backupgw", f"something else at {when}", when + 1, when)
    with pytest.raises(TokenRefused, match="expired"):
        tokens.verify_once(text, now=NOW + 630)
    other_store.close()


def test_a_token_that_is_refused_is_not_used_up(store: DatabaseTokens) -> None:
    tokens = signed(store, HS)
    with pytest.raises(TokenRefused, match="udience"):
        tokens.verify_once(forged(), now=NOW, audience="other")
    assert tokens.verify_once(forged(), now=NOW).principal.user == "ann"
    with pytest.raises(TokenRefused, match="no jti"):
        tokens.verify_once(forged(jti=None), now=NOW)


def test_keys_are_rotated_without_cutting_anybody_off(store: DatabaseTokens) -> None:
    old = issue(signed(store, HS))
    rotated = signed(store, ED, HS)
    assert rotated.verify(old, now=NOW).principal.user == "ann"
    new = issue(rotated)
    assert jwt.get_unverified_header(new) == {"alg": "EdDSA", "kid": "e", "typ": "JWT"}
    ended = signed(store, ED)
    assert ended.verify(new, now=NOW).principal.user == "ann"
    with pytest.raises(TokenRefused, match="no key"):
        ended.verify(old, now=NOW)


def test_an_audience_of_its_own(store: DatabaseTokens) -> None:
    tokens = signed(store, HS)
    text = issue(tokens, audience="downloads")
    assert tokens.verify(text, now=NOW, audience="downloads").principal.user == "ann"
    with pytest.raises(TokenRefused, match="udience"):
        tokens.verify(text, now=NOW)


@pytest.mark.parametrize(
    "options",
    [{"lifetime": 0}, {"lifetime": 86_401}, {"extra": {"exp": 1}}, {"extra": {"allow": ["admin"]}}],
)
def test_what_cannot_be_issued(store: DatabaseTokens, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"lifetime|claim"):
        issue(signed(store, HS), **options)


OTHER_CURVE = (
    ed448.Ed448PrivateKey.generate()
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ('algorithm = "HS256"\nsecret = "short-secret"', "needs 32 bytes"),
        ('algorithm = "none"\nsecret = "x"', "must be 'HS256' or 'EdDSA'"),
        ('algorithm = "HS256"', "HS256 needs secret"),
        ('algorithm = "EdDSA"\nsecret = "short-secret"', "is not a PEM key"),
        ('algorithm = "EdDSA"\npublic = "short-secret"', "is not a PEM key"),
        (f"algorithm = \"EdDSA\"\nsecret = '''{OTHER_CURVE}'''", "is not an Ed25519 key"),
        ('algorithm = "EdDSA"', "EdDSA needs secret"),
        (f"algorithm = \"HS256\"\nsecret = '{SECRET}'\n[[tokens.key]]\nid = 'k'", "tokens.key"),
    ],
)
def test_a_key_that_cannot_be_used_is_told_with_its_line_and_not_shown(
    tmp_path: Path, store: DatabaseTokens, key: str, told: str
) -> None:
    config = tmp_path / "gw.toml"
    config.write_text(f'[[tokens.key]]\nid = "k"\n{key}\n')
    with pytest.raises(SettingsError) as caught:
        from_settings(load(config, environ={}), store)
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"{config}:")
    for secret in ("short-secret", SECRET, OTHER_CURVE.splitlines()[1]):
        assert secret not in str(caught.value)


def test_keys_in_the_settings(tmp_path: Path, store: DatabaseTokens) -> None:
    config = tmp_path / "gw.toml"
    (tmp_path / "key.pem").write_text(PRIVATE_PEM)
    (tmp_path / "key.pem").chmod(0o600)
    config.write_text("")
    assert from_settings(load(config, environ={}), store) is None
    config.write_text(
        '[tokens]\nissuer = "here"\n[[tokens.key]]\nid = "2026-11"\nalgorithm = "EdDSA"\n'
        f'secret = {{ file = "{tmp_path}/key.pem" }}\n'
    )
    tokens = from_settings(load(config, environ={}), store)
    assert tokens is not None
    assert tokens.verify(issue(tokens), now=NOW).principal.user == "ann"
