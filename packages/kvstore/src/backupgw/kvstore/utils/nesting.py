"""Where a key lies in the backend: `ns/0123abcd` at two levels is `ns/01/23/0123abcd`.

Folders with millions of entries are slow on many file systems. The last segment stays the whole
key, so that a file which turns up in lost+found still tells what it is.
"""

from __future__ import annotations

CHARACTERS_PER_LEVEL = 2


def split_key(name: str) -> tuple[str | None, str]:
    """Return (namespace, key) of a name; the namespace is None where there is no `/`."""
    namespace, slash, key = name.rpartition("/")
    return (namespace if slash else None), key


def nest(name: str, levels: int, *, add_suffix: str | None = None) -> str:
    """Return where `name` lies at that many levels, with `add_suffix` behind it.

    As in borgstore, a key too short for its levels gives empty segments; `Store` leaves them out.
    """
    nested = name
    if levels > 0 and name:
        namespace, slash, key = name.rpartition("/")
        nested = namespace + slash
        for start in range(0, levels * CHARACTERS_PER_LEVEL, CHARACTERS_PER_LEVEL):
            nested += key[start : start + CHARACTERS_PER_LEVEL] + "/"
        nested += key
    return nested + (add_suffix or "")


def unnest(name: str, namespace: str, *, remove_suffix: str | None = None) -> str:
    """Return the name of the item that lies at `name` in `namespace` (`ns` or `ns/`).

    Raises:
        ValueError: `name` does not lie in `namespace`.
    """
    prefix = namespace if not namespace or namespace.endswith("/") else namespace + "/"
    if not name.startswith(prefix):
        raise ValueError(f"{name!r} does not lie in the namespace {namespace!r}")
    key = name[len(prefix) :].rpartition("/")[2]
    return prefix + key.removesuffix(remove_suffix or "")
