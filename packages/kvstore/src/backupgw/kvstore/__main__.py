"""A demonstration of the Store: `python -m backupgw.kvstore URL`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence

from .backends.errors import BackendAlreadyExists, BackendError
from .store import Store

USAGE = """\
Usage: python -m backupgw.kvstore URL

Makes a store at URL, which must not exist yet, shows what a store can do, and removes it again if
you say so. For example:

    python -m backupgw.kvstore file:///tmp/demonstration
    python -m backupgw.kvstore memory:
"""

CONFIG: dict[str, dict[str, object]] = {"config/": {"levels": [0]}, "data/": {"levels": [2]}}


def main(arguments: Sequence[str], ask: Callable[[str], str] = input) -> int:
    """Run the demonstration; return the exit status: 0 done, 1 failed, 2 wrong usage."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        _say(USAGE)
        return 0 if [*arguments] in (["-h"], ["--help"]) else 2
    try:
        store = Store(url=arguments[0], config=CONFIG)
        store.create()
    except BackendAlreadyExists as error:
        _say(f"There is something already, and it is left alone: {error}")
        return 1
    except BackendError as error:
        _say(f"{arguments[0]} cannot be used: {error}")
        return 1
    try:
        with store:
            _show(store)
    finally:
        try:
            answer = ask("Have a look at it, then enter DESTROY to remove it: ")
        except EOFError:
            answer = ""
        if answer == "DESTROY":
            store.destroy()
            _say("removed")
        else:
            _say("It stays.")
    return 0


def _show(store: Store) -> None:
    _say("Two settings, not nested:")
    store.store("config/settings1", b"value1 = 42")
    store.store("config/settings2", b"value2 = 23")
    _say(f"    listed: {sorted(info.name for info in store.list('config'))}")
    _say(f"    config/settings1 holds {store.load('config/settings1').decode()!r}")
    _say("Two pieces of data, named by their SHA-256 and nested two levels deep:")
    names = []
    for value in (b"some arbitrary binary data.", b"more arbitrary binary data. " * 2):
        name = f"data/{hashlib.sha256(value).hexdigest()}"
        store.store(name, value)
        names.append(name)
        _say(f"    {store.find(name)}")
    _say(f"    the last 5 bytes of the first: {store.load(names[0], offset=-5)!r}")
    _say("The second is deleted softly, and could be undeleted:")
    store.move(names[1], delete=True)
    _say(f"    live:    {[info.name for info in store.list('data')]}")
    _say(f"    deleted: {[info.name for info in store.list('data', deleted=True)]}")
    _say("Statistics:")
    for key, figure in sorted(store.stats.items()):
        if figure:
            _say(f"    {key} = {figure:g}")


def _say(text: str) -> None:
    print(text)  # noqa: T201 - a demonstration prints


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
