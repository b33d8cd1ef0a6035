"""What verification, trash and repositories were found to be, for the metrics of all processes.

A file of JSON each in the state folder, written by whichever process did the work: a worker, or the
operator's command.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from backupgw.runtime import state_folder
from backupgw.runtime.settings import Settings

from .settings import RestSettings

VERIFIED = "verified"
TRASH = "trash"
REPOSITORIES = "repositories"


def standing_path(settings: Settings, subject: str) -> Path:
    """Return where what is known of a subject is written down, whether it is or not."""
    place = settings.section("rest", RestSettings).place
    url = hashlib.sha256(settings.places[place].url.encode()).hexdigest()[:12]
    return state_folder.find(settings) / f"rest-{subject}-{place}-{url}.json"


def write_standing(settings: Settings, subject: str, found: Mapping[str, object]) -> None:
    """Write down what is known now.

    Raises:
        OSError: it cannot be written.
    """
    path = standing_path(settings, subject)
    new = path.with_suffix(f".new-{os.getpid()}")
    new.write_text(json.dumps(dict(found)))
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(new, owner.st_uid, owner.st_gid)
    new.replace(path)


def read_standing(path: Path) -> dict[str, float]:
    """Return the numbers that were written down; nothing where there are none."""
    try:
        found = json.loads(path.read_text())
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
