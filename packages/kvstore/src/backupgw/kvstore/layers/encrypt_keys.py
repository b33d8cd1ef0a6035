"""Keys of encrypted places: as age writes them, made anew, or kept in the place by a passphrase.

The text of a key is what `age-keygen` prints, `AGE-SECRET-KEY-1…`: Bech32 (BIP 173) without its
limit on the length.
"""

from __future__ import annotations

import secrets

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_PREFIX = "age-secret-key-"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def make_key() -> str:
    """Return the text of a new key."""
    return key_text(secrets.token_bytes(32))


def key_text(secret: bytes) -> str:
    """Return the text of a key of 32 bytes."""
    number = int.from_bytes(secret, "big") << 4  # 260 bits: 52 groups of five
    data = [number >> shift & 31 for shift in range(255, -1, -5)]
    checksum = _polymod([*_expanded(), *data, *[0] * 6]) ^ 1
    data += [checksum >> shift & 31 for shift in range(25, -1, -5)]
    return (_PREFIX + "1" + "".join(_ALPHABET[group] for group in data)).upper()


def read_key(text: str) -> bytes:
    """Return the 32 bytes of the key in `text`, which may be all of a file of age-keygen.

    Raises:
        ValueError: there is not exactly one key in it, or it is mistyped. The message does not
            repeat it.
    """
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(keys) != 1:
        raise ValueError(f"holds {len(keys)} keys; one is needed, AGE-SECRET-KEY-1…")
    key = keys[0]
    if key not in (key.upper(), key.lower()) or not key.lower().startswith(_PREFIX + "1"):
        raise ValueError("is not a key of age-keygen, AGE-SECRET-KEY-1…")
    data = [_ALPHABET.find(letter) for letter in key.lower()[len(_PREFIX) + 1 :]]
    if -1 in data or len(data) != 58 or _polymod([*_expanded(), *data]) != 1 or data[51] & 15:
        raise ValueError("is mistyped: the key's checksum does not fit")
    number = 0
    for group in data[:52]:
        number = number << 5 | group
    return (number >> 4).to_bytes(32, "big")


def _expanded() -> list[int]:
    codes = _PREFIX.encode()
    return [code >> 5 for code in codes] + [0] + [code & 31 for code in codes]


def _polymod(groups: list[int]) -> int:
    checksum = 1
    for group in groups:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ group
        for bit, factor in enumerate(_GENERATOR):
            if top >> bit & 1:
                checksum ^= factor
    return checksum
