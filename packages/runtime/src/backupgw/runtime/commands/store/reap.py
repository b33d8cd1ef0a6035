"""`backupgw store reap`: clears away what writers that died have left in places."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from ...command import CommandError, Exit, UsageError
from ...secrets import SecretError
from .output import cell, error_text, json_document, line, remark

if TYPE_CHECKING:
    from .location import Location, Places

_LEAST = 3600.0
"""Seconds: what is younger may belong to a writer at work."""


def reap(arguments: Namespace, places: Places) -> int:
    """Clear away in the places named, else in all of the settings; one that fails stops none."""
    from backupgw.kvstore.backends.errors import BackendError

    older_than = _age(arguments.older_than)
    targets = [places.locate(text) for text in arguments.places or places.settings.places]
    for location in targets:
        if location.path:
            raise UsageError(f"{location}: names what is in a place; name the place alone")
    removed: dict[str, int] = {}
    failed: dict[str, str] = {}
    for location in targets:
        try:
            removed[location.place] = _reap(location, places, older_than)
        except (BackendError, CommandError, SecretError) as error:
            failed[location.place] = error_text(error)
            if not arguments.json:
                remark(f"{location.place}: {failed[location.place]}")
        else:
            if not arguments.json:
                line(f"{cell(location.place)}: {removed[location.place]} removed")
    if arguments.json:
        json_document({"removed": removed, "failed": failed})
    if not failed:
        return Exit.DONE
    return Exit.PARTLY if removed else Exit.FAILED


def _reap(location: Location, places: Places, older_than: float) -> int:
    # Not by `places.open`: a hundred places need not be open at a time.
    place = places.make(location)
    with place:
        return place.reap(older_than)


def _age(text: str) -> float:
    from backupgw.kvstore.layers import options

    try:
        return options.duration("--older-than", text, least=_LEAST)
    except options.OptionInvalid as error:
        raise UsageError(str(error)) from error
