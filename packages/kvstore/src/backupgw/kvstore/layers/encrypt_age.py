"""The age v1 file format (https://c2sp.org/age), as far as the encrypt layer uses it.

A file is a text header, 16 bytes of nonce, and the content in chunks of 64 KiB, each sealed with
ChaCha20-Poly1305 under a key of the file's own. A chunk's nonce is its number and whether it is
the last, so chunks that are changed, exchanged, missing or left over are noticed, and any chunk
can be opened without those before it. The header holds the file's key, sealed for an X25519 key
(items) or under a passphrase (the place's own key).

Only headers with one such recipient are written and read: then the header of an item is always
HEADER bytes long, and an item's size follows from that of its file.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..backends.errors import BackendError
from .encrypt_stretching import MOST_WORK, Stretch, Stretching

CHUNK = 64 << 10
"""Bytes of content in a chunk; only the last may have fewer."""
TAG = 16
SEALED = CHUNK + TAG
NONCE = 16
HEADER = 168
START = HEADER + NONCE
"""Where the first chunk of an item begins."""

WORK_FACTOR = 17
"""scrypt's cost for a passphrase is 2 to the power of this: 128 MiB, and half a second at most."""

_VERSION = b"age-encryption.org/v1\n"
_X25519_INFO = b"age-encryption.org/v1/X25519"
_FILE_KEY = 16
_NO_NONCE = bytes(12)

_B64 = rb"[A-Za-z0-9+/]{43}"
_ITEM = re.compile(
    rb"age-encryption\.org/v1\n-> X25519 (%b)\n(%b)\n--- (%b)\n\Z" % (_B64, _B64, _B64)
)
_PASSPHRASE = re.compile(
    rb"age-encryption\.org/v1\n-> scrypt ([A-Za-z0-9+/]{22}) ([1-9][0-9]?)\n(%b)\n--- (%b)\n"
    % (_B64, _B64)
)


class Undecryptable(BackendError):
    """The bytes are not what was written, or were written with another key."""


class Content(NamedTuple):
    """What opens and seals the chunks of one file."""

    cipher: ChaCha20Poly1305

    def seal(self, number: int, chunk: bytes | bytearray | memoryview, *, last: bool) -> bytes:
        return self.cipher.encrypt(_chunk_nonce(number, last=last), chunk, None)

    def open(self, number: int, sealed: bytes | bytearray | memoryview, *, last: bool) -> bytes:
        """Raises Undecryptable."""
        try:
            return self.cipher.decrypt(_chunk_nonce(number, last=last), sealed, None)
        except InvalidTag as error:
            raise Undecryptable(f"chunk {number} was changed, moved or cut off") from error


class Key:
    """An X25519 key that items are sealed for, and that opens them.

    Args:
        secret: its 32 bytes. Who knows them reads everything; who does not cannot write an item
            that would be taken for genuine either, since the public half stays with us.
    """

    def __init__(self, secret: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(secret)
        self._public = self._private.public_key()
        self._public_bytes = self._public.public_bytes_raw()

    def begin(self) -> tuple[bytes, Content]:
        """Return what a new file begins with, START bytes, and what seals its chunks."""
        file_key = secrets.token_bytes(_FILE_KEY)
        ephemeral = X25519PrivateKey.generate()
        share = ephemeral.public_key().public_bytes_raw()
        wrapping = self._wrapping(share, ephemeral.exchange(self._public))
        body = ChaCha20Poly1305(wrapping).encrypt(_NO_NONCE, file_key, None)
        head = _VERSION + b"-> X25519 %b\n%b\n---" % (_b64(share), _b64(body))
        nonce = secrets.token_bytes(NONCE)
        return _with_mac(head, file_key) + nonce, _content(file_key, nonce)

    def read(self, start: bytes) -> Content:
        """Return what opens a file that begins with these START bytes. Raises Undecryptable."""
        match = _ITEM.match(start[:HEADER])
        if match is None or len(start) != START:
            raise Undecryptable("not a file that this layer wrote, or its beginning is damaged")
        share, body, _ = map(_unb64, match.groups())
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(share))
            wrapping = self._wrapping(share, shared)
            file_key = ChaCha20Poly1305(wrapping).decrypt(_NO_NONCE, body, None)
        except (InvalidTag, ValueError) as error:
            raise Undecryptable("written with another key, or its beginning is damaged") from error
        _check_mac(start[:HEADER], file_key)
        return _content(file_key, start[HEADER:])

    def _wrapping(self, share: bytes, shared: bytes) -> bytes:
        return _hkdf(shared, share + self._public_bytes, _X25519_INFO)

    def derive(self, purpose: bytes, length: int) -> bytes:
        """Return a key for another purpose, which tells nothing of this one."""
        return _hkdf(self._private.private_bytes_raw(), b"", b"backupgw/" + purpose, length)


def seal_under_passphrase(content: bytes, passphrase: str, *, work: int = WORK_FACTOR) -> bytes:
    """Return a whole age file that the passphrase opens; for contents of at most a chunk."""
    file_key = secrets.token_bytes(_FILE_KEY)
    salt = secrets.token_bytes(16)
    wrapping = Stretch(salt, work).key(passphrase)
    body = ChaCha20Poly1305(wrapping).encrypt(_NO_NONCE, file_key, None)
    head = _VERSION + b"-> scrypt %b %d\n%b\n---" % (_b64(salt), work, _b64(body))
    nonce = secrets.token_bytes(NONCE)
    sealed = _content(file_key, nonce).seal(0, content, last=True)
    return _with_mac(head, file_key) + nonce + sealed


def open_under_passphrase(
    file: bytes, passphrase: str, stretching: Stretching | None = None
) -> bytes:
    """Return what `seal_under_passphrase`, or age itself, sealed.

    Args:
        stretching: of this passphrase; used where it is for this file.

    Raises:
        Undecryptable: the passphrase is another one, or the file is damaged.
    """
    stretch, match = _stretch(file)
    body = match[3]
    try:
        wrapping = stretching.key(stretch) if stretching is not None else None
        if wrapping is None:
            wrapping = stretch.key(passphrase)
        file_key = ChaCha20Poly1305(wrapping).decrypt(_NO_NONCE, _unb64(body), None)
    except InvalidTag as error:
        raise Undecryptable("the passphrase is wrong") from error
    _check_mac(match[0], file_key)
    nonce, sealed = file[match.end() :][:NONCE], file[match.end() + NONCE :]
    if len(nonce) < NONCE or not TAG <= len(sealed) <= SEALED:
        raise Undecryptable("cut off, or longer than it should be")
    return _content(file_key, nonce).open(0, sealed, last=True)


def stretch_of(file: bytes) -> Stretch:
    """Return how the passphrase of an age file is stretched. Raises Undecryptable."""
    return _stretch(file)[0]


def _stretch(file: bytes) -> tuple[Stretch, re.Match[bytes]]:
    match = _PASSPHRASE.match(file)
    if match is None:
        raise Undecryptable("not an age file with a passphrase, or damaged")
    if int(match[2]) > MOST_WORK:
        raise Undecryptable(f"asks for more than scrypt's work factor {MOST_WORK}")
    return Stretch(_unb64(match[1]), int(match[2])), match


def plain_size(size: int) -> int | None:
    """Return the bytes of content in a file of `size` bytes; None if no item has that size."""
    sealed = size - START
    chunks = -(-sealed // SEALED)
    content = sealed - chunks * TAG
    if sealed < TAG or (content <= (chunks - 1) * CHUNK and chunks > 1):
        return None  # cut off within a chunk, or a last chunk without content
    return content


def file_size(size: int) -> int:
    """Return the bytes of a file with `size` bytes of content."""
    return START + size + TAG * chunks_of(size)


def chunks_of(size: int) -> int:
    """Return in how many chunks `size` bytes of content lie."""
    return max(1, -(-size // CHUNK))


def _content(file_key: bytes, nonce: bytes) -> Content:
    return Content(ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload")))


def _chunk_nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _with_mac(head: bytes, file_key: bytes) -> bytes:
    return b"%b %b\n" % (head, _b64(_mac(head, file_key)))


def _check_mac(header: bytes, file_key: bytes) -> None:
    head, _, mac = header.rpartition(b" ")
    if not hmac.compare_digest(_mac(head, file_key), _unb64(mac.rstrip(b"\n"))):
        raise Undecryptable("its beginning is damaged")


def _mac(head: bytes, file_key: bytes) -> bytes:
    return hmac.digest(_hkdf(file_key, b"", b"header"), head, "sha256")


def _hkdf(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)


def _b64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _unb64(text: bytes) -> bytes:
    """Decode canonical base64 without padding. Raises Undecryptable."""
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise Undecryptable("its beginning is damaged") from error
    if _b64(data) != text:
        raise Undecryptable("its beginning is damaged")
    return data
