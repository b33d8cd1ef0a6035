"""SHA-256 whose state can be written down, so that another process goes on with it.

A place that takes a value in parts cannot give those back before the value is whole, so whoever
carries an upload on cannot hash them again. Python's own object hides its state; here the same
OpenSSL functions that it calls are called directly, and the state is their documented structure
(`SHA256_CTX`, https://docs.openssl.org/3.0/man3/SHA256_Init/), in a form that does not depend on
the machine.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import struct

from .errors import UnsupportedOperation

_BLOCK = 64
_WORDS = 8
_COUNT_BITS = 64
_STATE = re.compile(r"([0-9a-f]{64}):(\d{1,19}):((?:[0-9a-f]{2}){0,63})\Z")
_KNOWN = b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""A known answer (FIPS 180-4, example 1), by which a library is tried before it is trusted."""


class _Context(ctypes.Structure):
    _fields_ = (
        ("h", ctypes.c_uint32 * _WORDS),
        ("low", ctypes.c_uint32),
        ("high", ctypes.c_uint32),
        ("data", ctypes.c_ubyte * _BLOCK),
        ("pending", ctypes.c_uint),
        ("length", ctypes.c_uint),
    )


class ResumableSha256:
    """A SHA-256 on its way.

    Raises:
        OSError: this Python's OpenSSL does not offer the functions; see `new`.
    """

    def __init__(self) -> None:
        self._context = _Context()
        self._library = _library()
        self._library.SHA256_Init(ctypes.byref(self._context))

    def update(self, data: bytearray, start: int, end: int) -> None:
        """Take the bytes of `data` from `start` up to `end`. Other threads run meanwhile."""
        if start < end:
            piece = (ctypes.c_char * (end - start)).from_buffer(data, start)
            self._library.SHA256_Update(
                ctypes.byref(self._context), piece, ctypes.c_size_t(end - start)
            )

    def hexdigest(self) -> str:
        """Return the digest of what came so far; more may come."""
        copy = _Context.from_buffer_copy(self._context)
        digest = ctypes.create_string_buffer(32)
        self._library.SHA256_Final(digest, ctypes.byref(copy))
        return digest.raw.hex()

    def state(self) -> str:
        """Return what `from_state` goes on from: text, about as long as two digests."""
        context = self._context
        words = struct.pack(f">{_WORDS}I", *context.h).hex()
        pending = bytes(context.data[: context.pending]).hex()
        return f"{words}:{(context.high << 32 | context.low) // 8}:{pending}"

    @classmethod
    def from_state(cls, state: str) -> ResumableSha256:
        """Return the hash as it was when `state` was written down.

        Raises:
            ValueError: it is no state.
        """
        match = _STATE.match(state)
        if match is None or int(match[2]) % _BLOCK != len(match[3]) // 2:
            raise ValueError(f"not the state of a SHA-256: {state[:40]!r}")
        new = cls()
        context = new._context
        context.h[:] = struct.unpack(f">{_WORDS}I", bytes.fromhex(match[1]))
        bits = int(match[2]) * 8 % (1 << _COUNT_BITS)
        context.low, context.high = bits & 0xFFFFFFFF, bits >> 32
        pending = bytes.fromhex(match[3])
        context.pending = len(pending)
        context.data[: len(pending)] = pending
        return new


class PlainSha256:
    """The same without a state, for Pythons whose OpenSSL does not offer the functions."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, data: bytearray, start: int, end: int) -> None:
        with memoryview(data) as view:
            self._digest.update(view[start:end])

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def state(self) -> str:
        raise UnsupportedOperation(
            "this Python cannot write down how far a SHA-256 came, so a write with an expected "
            "hash has no checkpoint"
        )


def new() -> ResumableSha256 | PlainSha256:
    """Return a SHA-256, resumable where this Python can do that."""
    try:
        return ResumableSha256()
    except OSError:
        return PlainSha256()


@functools.cache
def _library() -> ctypes.CDLL:
    """Return the library with OpenSSL's functions: that which Python's own hashes use."""
    try:
        import _hashlib

        library = ctypes.CDLL(_hashlib.__file__)
        for name in ("SHA256_Init", "SHA256_Update", "SHA256_Final"):
            getattr(library, name)
    except (ImportError, AttributeError) as error:
        raise OSError(f"no OpenSSL with SHA256_Init and its kin: {error}") from error
    context, digest = _Context(), ctypes.create_string_buffer(32)
    message, answer = _KNOWN
    library.SHA256_Init(ctypes.byref(context))
    library.SHA256_Update(ctypes.byref(context), message, ctypes.c_size_t(len(message)))
    library.SHA256_Final(digest, ctypes.byref(context))
    if digest.raw.hex() != answer:
        raise OSError("this OpenSSL's SHA256 functions give wrong answers")
    return library
