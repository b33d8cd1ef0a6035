"""`backupgw store auth`: gets the grant by which a place acts for its owner, on a web page."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...command import CommandError, UsageError
from ...secrets import Secret, SecretError
from ...settings_errors import did_you_mean

if TYPE_CHECKING:
    from .location import Places

_LONGEST_CODE = 4096


def auth(arguments: Namespace, places: Places) -> int:
    """Walk a person through it.

    The page can be visited on any machine; the code that it leads to is typed in here, or comes by
    standard input. The grant is written to the file that the place's settings name.
    """
    from backupgw.kvstore.backends.grants import begin

    settings = places.settings
    place = settings.places.get(arguments.place)
    if place is None:
        raise UsageError(
            f"there is no place {arguments.place!r} in the settings; "
            f"{did_you_mean(arguments.place, settings.places)}"
        )
    options = _options(place.__pydantic_extra__ or {})
    grant = begin(place.url, options)
    target = _target(arguments.place, grant.option, (place.__pydantic_extra__ or {}))
    _say(f"Visit this page, on any machine, and agree:\n\n    {grant.visit}\n")
    secret = grant.finish(_code(grant.brings))
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


def _code(brings: str) -> str:
    _say(f"Then bring {brings}: ", end="" if sys.stdin.isatty() else "\n")
    code = sys.stdin.readline(_LONGEST_CODE).strip()
    if not code:
        raise CommandError("no code came; nothing was changed")
    return code


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
