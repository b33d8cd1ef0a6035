"""`backupgw store auth`: gets the grant by which a place acts for its owner, on a web page."""

from __future__ import annotations

import json
import os
import select
import sys
import tempfile
import threading
import webbrowser
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ...command import CommandError, UsageError
from ...secrets import Secret, SecretError
from ...settings_errors import did_you_mean

if TYPE_CHECKING:
    from backupgw.kvstore.backends.grants import Grant
    from backupgw.kvstore.backends.loopback import Loopback

    from .location import Places

_LONGEST_CODE = 4096


def auth(arguments: Namespace, places: Places) -> int:
    """Walk a person through it.

    The page can be visited on any machine; the code that it leads to is typed in here, comes by
    standard input, or is brought by a browser of this machine to an address where we listen
    meanwhile. The grant is written to the file that the place's settings name.
    """
    from backupgw.kvstore.backends.grants import begin
    from backupgw.kvstore.backends.loopback import Loopback

    settings = places.settings
    place = settings.places.get(arguments.place)
    if place is None:
        raise UsageError(
            f"there is no place {arguments.place!r} in the settings; "
            f"{did_you_mean(arguments.place, settings.places)}"
        )
    options = _options(place.__pydantic_extra__ or {})
    with Loopback() as here:
        grant = begin(place.url, options, here.address)
        target = _target(arguments.place, grant.option, (place.__pydantic_extra__ or {}))
        _say(f"Visit this page, on any machine, and agree:\n\n    {grant.visit}\n")
        heard = grant.is_answer is not None
        if heard and not arguments.no_browser and _shows_pages():
            # Beside us: some stay until they are closed, and all want to be heard meanwhile.
            threading.Thread(target=webbrowser.open, args=(grant.visit,), daemon=True).start()
        _say(f"Then bring {grant.brings}", end="")
        if heard:
            _say("; a browser of this machine brings it by itself", end="")
        _say(": ", end="" if sys.stdin.isatty() else "\n")
        secret = grant.finish(_code(here, grant))
    _write(target, secret)
    if arguments.json:
        print(json.dumps({"place": arguments.place, "written": str(target)}))  # noqa: T201
    else:
        print(f"the grant of {arguments.place} is in {target}")  # noqa: T201
    return 0


def _options(given: dict[str, Any]) -> dict[str, object]:
    """Return the options that can be had; the grant itself need not be there yet."""
    options: dict[str, object] = {}
    for name, value in given.items():
        try:
            options[name] = value.reveal() if isinstance(value, Secret) else value
        except SecretError:
            continue
    return options


def _target(place: str, option: str, given: dict[str, Any]) -> Path:
    secret = given.get(option)
    path = secret.file if isinstance(secret, Secret) else None
    if path is None:
        raise CommandError(
            f"nothing says where to put the grant: write {option} = "
            f'{{ file = "/etc/backupgw/{place}-grant" }} into [places.{place}]'
        )
    folder = Path(path).parent
    if not os.access(folder, os.W_OK):
        raise CommandError(
            f"{folder}: no file can be written there; make the folder, or be its owner"
        )
    return Path(path)


def _shows_pages() -> bool:
    """Whether whoever sits here sees what a browser of this machine shows."""
    if sys.platform in ("darwin", "win32") or os.environ.get("BROWSER"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _code(here: Loopback, grant: Grant) -> str:
    """Wait for the code: what is typed in, or what a browser brings."""
    waited_for: list[Loopback | TextIO] = [sys.stdin]
    if grant.is_answer is not None:
        waited_for.append(here)
    while True:
        ready, _, _ = select.select(waited_for, [], [])
        if sys.stdin in ready:
            code = sys.stdin.readline(_LONGEST_CODE).strip()
            if code:
                return code
            raise CommandError("no code came; nothing was changed")
        if grant.is_answer is not None and here in ready:
            answer = here.answer(grant.is_answer)
            if answer is not None:
                _say("\nyour browser has brought it")
                return answer


def _write(path: Path, secret: str) -> None:
    """Put a secret into a file that only its owner reads, whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise CommandError(f"{path}: the grant cannot be written: {error.strerror}") from error


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)  # noqa: T201
