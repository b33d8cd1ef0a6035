"""What this node is: the section [wings] and the Wings file put together, with all that is missing
told in one line each."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from backupgw.runtime.restic import ResticProgram, ResticUnusable, confinement, find_program
from backupgw.runtime.secrets import Secret
from backupgw.runtime.settings import Settings

from .settings import ResticSettings, WingsSettings
from .wings_file import PATHS, WingsFile, read_wings_file

DATA = "/var/lib/pelican/volumes"
BACKUPS = "/var/lib/pelican/backups"


@dataclass(frozen=True)
class Node:
    """This node.

    Attributes:
        uuid: its name; "" for one that has none.
        token_id, token: what the Panel and it know each other by.
        panel: the Panel's address without a slash at its end; None: there is none to be told.
        data: folder of the servers' folders, links resolved.
        backup_directory: folder of local archives.
        owner: whom restored files belong to; None: whom they belonged to.
        wings: what of the Wings file concerns us; None where there is no such file.
    """

    uuid: str
    token_id: str
    token: str = field(repr=False)
    panel: str | None
    data: Path
    backup_directory: Path
    owner: tuple[int, int] | None
    wings: WingsFile | None

    def root(self, server: str) -> Path:
        """Return the folder of a server, a canonical UUID."""
        return self.data / server


def node_of(settings: Settings) -> Node:
    """Return the node that the settings describe.

    Raises:
        SettingsError: something is missing, or contradicts itself.
        SecretError: a token cannot be had.
    """
    section = settings.section("wings", WingsSettings)
    wings = _wings_file(section)
    token = section.token or (wings.token if wings else None)
    token_id = section.token_id or (wings.token_id if wings else None)
    if token is None or token_id is None:
        raise settings.mistake(
            "the Panel's token and token_id for this node are missing; name the Wings file that "
            f"has them in wings_file (looked for: {', '.join(PATHS)}), or set both in [wings]",
            "wings",
            "token",
        )
    panel = section.panel if section.panel is not None else (wings.remote if wings else "")
    if panel and not panel.startswith(("http://", "https://")):
        raise settings.mistake(
            "is no address; write one such as https://panel.example.com", "wings", "panel"
        )
    data = Path(os.path.realpath(section.data or (wings.system.data if wings else DATA)))
    if not data.is_dir():
        raise settings.mistake(
            f"{data}, the folder of the servers, is not there; set data in [wings]", "wings", "data"
        )
    backups = section.backup_directory
    if backups is None:
        backups = Path(wings.system.backup_directory if wings else BACKUPS)
    owner = section.owner
    if owner is None and wings is not None and os.geteuid() == 0:
        owner = wings.owner()
    return Node(
        uuid=section.node or (wings.uuid if wings else ""),
        token_id=token_id,
        token=token.reveal(),
        panel=panel.rstrip("/") or None,
        data=data,
        backup_directory=backups,
        owner=owner,
        wings=wings,
    )


def _wings_file(section: WingsSettings) -> WingsFile | None:
    if section.wings_file == "":
        return None
    if section.wings_file is None and not any(os.path.exists(path) for path in PATHS):
        return None
    return read_wings_file(section.wings_file)


@dataclass(frozen=True)
class ResticPlan:
    """How the adapter `restic` works here.

    Attributes:
        program: the restic.
        address: of the repository; None: one in `place`.
        place: name of the place, where the repository lies on this gateway's storage.
        password: None: made at the first start.
        cache: folder.
        upload: bytes a second; None: no limit.
        confine: whether restic is held to the server's folder.
    """

    program: ResticProgram
    address: str | None = field(repr=False)
    place: str | None
    password: Secret | None
    environment: dict[str, str] = field(repr=False)
    cache: Path
    upload: int | None = None
    confine: bool = True


def restic_plan(settings: Settings, node: Node, state: Path) -> ResticPlan | None:
    """Return how backups by restic are made; None where they are not to be.

    Args:
        state: the gateway's state folder.

    Raises:
        SettingsError: something is missing, or contradicts itself.
        ResticUnusable: there is no restic, or one that is too old.
        SecretError: a secret cannot be had.
    """
    section = settings.section("wings", WingsSettings).restic
    block = node.wings.system.backups.restic if node.wings else None
    enabled = section.enabled
    if enabled is None:
        said = section.repository is not None or section.place is not None
        enabled = said or block is None or block.enabled or not block.repository
    if not enabled:
        return None
    address = section.repository.reveal() if section.repository else None
    environment = {name: value.reveal() for name, value in section.environment.items()}
    password = section.password
    if address is None and section.place is None and block is not None and block.repository:
        address = block.repository
        for name, value in (
            ("AWS_ACCESS_KEY_ID", block.aws_access_key_id),
            ("AWS_SECRET_ACCESS_KEY", block.aws_secret_access_key.reveal()),
            ("AWS_DEFAULT_REGION", block.aws_region),
        ):
            if value:
                environment.setdefault(name, value)
        if password is None and block.password.reveal():
            password = block.password
    place = None
    if address is None:
        place = section.place or "default"
        if place not in settings.places:
            known = ", ".join(sorted(settings.places))
            raise settings.mistake(
                f"there is no [places.{place}]; there are {known}", "wings", "restic", "place"
            )
    elif password is None and not section.passwords:
        raise settings.mistake(
            "the repository's password is missing", "wings", "restic", "password"
        )
    why = confinement.why_not() if section.confine else None
    if why is not None:
        raise settings.mistake(
            f"{why}, and without it whoever has a server's files can have restic back up others of "
            "this machine; set confine = false where those people are trusted",
            *("wings", "restic", "confine"),
        )
    program = _program(settings, section.binary, block.binary_path if block else None)
    if section.confine and _is_script(program.path):
        raise settings.mistake(
            f"{program.path} is a script, and a confined restic starts no other programs; name "
            "restic itself, or set confine = false",
            *("wings", "restic", "binary"),
        )
    if section.compression is not None and section.compression not in program.compressions:
        raise settings.mistake(
            f"{program.shown} knows {', '.join(program.compressions)} only",
            *("wings", "restic", "compression"),
        )
    return ResticPlan(
        program=program,
        address=address,
        place=place,
        password=password,
        environment=environment,
        cache=section.cache or _cache(block.cache_dir if block else None, state),
        upload=_upload(section, node),
        confine=section.confine,
    )


def _upload(section: ResticSettings, node: Node) -> int | None:
    if section.upload is not None:
        return int(section.upload)
    limit = node.wings.system.backups.write_limit if node.wings else 0
    return limit << 20 or None


def _program(settings: Settings, binary: str | None, from_file: str | None) -> ResticProgram:
    name = binary or from_file or "restic"
    try:
        return find_program(name)
    except ResticUnusable as error:
        # Wings' default, in a file that says nothing of it, is a name to be looked up.
        if binary is None and from_file and os.sep not in from_file and shutil.which("restic"):
            return find_program()
        raise settings.mistake(str(error), "wings", "restic", "binary") from error


def _is_script(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def _cache(named: str | None, state: Path) -> Path:
    return Path(named) if named and os.access(os.path.dirname(named), os.W_OK) else state / "restic"
