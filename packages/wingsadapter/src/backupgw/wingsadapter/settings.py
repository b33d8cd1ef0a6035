"""The section [wings] of the settings: the listener's options, the node, and what is backed up how.

What the Wings file says is taken over where this section is silent (`node.py`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from backupgw.runtime.http.options import HttpOptions
from backupgw.runtime.secrets import Secret
from backupgw.runtime.settings_times import Cron, Zone

PORT = 8080
"""Wings' own."""
_PATH = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*\Z")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*\Z")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _some(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, int | float) and value <= 0):
        raise ValueError('must be more than 0, such as "20 MB"; remove it for no limit')
    return value


Rate = Annotated[ByteSize, BeforeValidator(_some)]
"""Bytes a second."""


class ResticSettings(_Section):
    """[wings.restic]: the repository, and the program.

    Attributes:
        enabled: whether the adapter `restic` is offered; default where the Wings file says so, or
            says nothing of restic.
        repository: any address that restic takes; default a repository in `place`, on this
            gateway's own storage.
        place: one of [places.NAME]; default "default".
        folder: of the repository in the place.
        password: of the repository; default one that is made at the first start, in the state
            folder. Whoever loses it has lost the backups.
        environment: what restic needs for the repository: AWS_ACCESS_KEY_ID and the like.
        ca_file: PEM file of authorities to trust instead of the system's.
        per_server: whether each server has a repository of its own, in a folder called as the
            server, below the one that is named.
        passwords: those of single servers' repositories; needs per_server.
        binary: name or path of the program; default that of the Wings file, else "restic".
        cache: folder of restic's cache; default that of the Wings file, else the state folder.
        init: whether the first backup makes the repository; default where nodes that share it can
            claim their turn there, so that only one of them makes it.
        confine: whether the kernel holds restic to the server's folder while it makes a backup;
            without, whoever has a server's files can have it read others, by links that are put
            there in the right moment.
        compression: "auto", "off", "max" and, since 0.18, "fastest" and "better".
        upload, download: bytes a second, for each restic that runs; upload defaults to the Wings
            file's write_limit.
        lock_wait: seconds that a command waits for a repository that another node has locked.
        refresh: seconds between two looks for snapshots that others have made or removed.
    """

    enabled: bool | None = None
    repository: Secret | None = None
    place: str | None = None
    folder: str = "wings"
    password: Secret | None = None
    environment: dict[str, Secret] = {}
    ca_file: Path | None = None
    per_server: bool = False
    passwords: dict[str, Secret] = {}
    binary: str | None = None
    cache: Path | None = None
    init: bool | None = None
    confine: bool = True
    compression: Literal["auto", "off", "max", "fastest", "better"] | None = None
    upload: Rate | None = None
    download: Rate | None = None
    lock_wait: float = Field(default=300.0, ge=0, le=86_400)
    refresh: float = Field(default=300.0, ge=1, le=86_400)

    @model_validator(mode="after")
    def _one_repository(self) -> Self:
        if self.repository is not None and self.place is not None:
            raise ValueError("has a repository and a place; keep one of them")
        if not _PATH.match(self.folder):
            raise ValueError('folder: write letters, digits, "-" and "_" between slashes')
        for name in self.environment:
            if not _VARIABLE.match(name) or name.startswith("RESTIC_"):
                raise ValueError(f"environment: {name} is not for restic's place; remove it")
        if self.passwords and not self.per_server:
            raise ValueError("passwords of single servers need per_server = true")
        return self


class RetentionSettings(_Section):
    """[wings.retention]: how many snapshots of a server are kept; nothing set: all of them.

    What the Panel still lists is never removed.

    Attributes:
        last, hourly, daily, weekly, monthly, yearly: as restic's --keep-… have it.
        schedule: when, in cron's five fields.
    """

    last: int | None = Field(default=None, ge=1)
    hourly: int | None = Field(default=None, ge=1)
    daily: int | None = Field(default=None, ge=1)
    weekly: int | None = Field(default=None, ge=1)
    monthly: int | None = Field(default=None, ge=1)
    yearly: int | None = Field(default=None, ge=1)
    schedule: str = "20 3 * * *"

    def flags(self) -> list[tuple[str, str]]:
        """Return the policy as restic's options; none: nothing is to be removed."""
        names = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
        return [
            (f"--keep-{name}", str(value))
            for name in names
            if (value := getattr(self, name)) is not None
        ]


class UpkeepSettings(_Section):
    """[wings.upkeep]: what is done to the repository by the calendar.

    Attributes:
        prune: when data that no snapshot needs is removed, in cron's five fields; "" for never.
        check: when the repository is verified; "" for never.
        read_data: what of the data is read then: a part such as "5%" or "1/10", or "all"; "": none.
        zone: the time zone of these.
        patience: seconds that prune and deletes wait for a moment without backups, before backups
            that come later wait for them.
    """

    prune: Cron = "10 4 * * *"
    check: Cron = "40 4 * * 0"
    read_data: str = ""
    zone: Zone = "UTC"
    patience: float = Field(default=600.0, ge=0, le=86_400)

    @field_validator("read_data")
    @classmethod
    def _part(cls, text: str) -> str:
        if text in ("", "all"):
            return text
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
            possible = 0 < float(match[1]) <= 100
        else:  # the n-th of so many parts, as restic has it
            match = re.fullmatch(r"(\d+)/(\d+)", text)
            possible = match is not None and 1 <= int(match[1]) <= int(match[2])
        if not possible:
            raise ValueError(f'{text!r} is no part of the data; write "5%", "1/10" or "all"')
        return text


class HookSettings(_Section):
    """[[wings.hook]]: a command before or after a backup; no shell reads it.

    It gets BACKUPGW_SERVER, BACKUPGW_BACKUP, BACKUPGW_ADAPTER and BACKUPGW_ROOT, and after a backup
    BACKUPGW_SUCCESSFUL, in its environment.

    Attributes:
        when: "before" or "after".
        command: program and arguments.
        servers: of these only; none: of all.
        time_limit: seconds.
        required: whether a backup fails where the command before it fails.
    """

    when: Literal["before", "after"]
    command: Annotated[list[str], Field(min_length=1)]
    servers: list[str] = []
    time_limit: float = Field(default=60.0, gt=0, le=3600)
    required: bool = True


class WingsSettings(HttpOptions):
    """Settings of the adapter for game panels.

    Attributes:
        listen: as of every service; Wings' port on every address.
        wings_file: the Wings file; default the first of /etc/pelican/config.yml and
            /etc/pterodactyl/config.yml that exists; "" for none.
        token_id, token: what the Panel and this node know each other by; default the Wings file's.
        panel: address of the Panel; default the Wings file's; "" for none that is told.
        upstream: address of the Wings that answers what is not about backups.
        upstream_verify: whether the certificate of that Wings is looked at.
        download_hosts: where archives of the adapter `s3` may be fetched from in a restore:
            "s3.example.com", "*.example.com", "http://minio.lan:9000"; none: any host on a public
            address, by https.
        node: a name or uuid of this node; default the Wings file's uuid.
        data: folder of the servers' folders.
        backup_directory: folder of local archives.
        owner: user and group that restored files belong to, as numbers: [988, 988].
        unknown_servers: "deny" those that the Panel does not list, or "allow" those that have a
            folder; default deny where there is a Panel.
        cross_server_restore: whether a server may be restored from another's backup.
        running: backups at a time.
        restores: restores at a time.
        notify: whether the Panel is told how backups and restores end.
        keep_alive: seconds of silence on an event stream until a comment is sent.
        time_limit: seconds that a backup or restore may take; the Panel gives one up after 6 hours.
        restic, retention, upkeep, hook: see there.
    """

    listen: list[str] = Field(default=[f":{PORT}"])
    wings_file: str | None = None
    token_id: str | None = None
    token: Secret | None = None
    panel: str | None = None
    upstream: str | None = None
    upstream_verify: bool = True
    download_hosts: list[str] = Field(default=[])
    node: str | None = None
    data: Path | None = None
    backup_directory: Path | None = None
    owner: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None
    unknown_servers: Literal["deny", "allow"] | None = None
    cross_server_restore: bool = True
    running: int = Field(default=3, ge=1, le=100)
    restores: int = Field(default=2, ge=1, le=100)
    notify: bool = True
    keep_alive: float = Field(default=15.0, gt=0, le=300)
    time_limit: float = Field(default=21_000.0, gt=0, le=604_800)
    restic: ResticSettings = ResticSettings()
    retention: RetentionSettings = RetentionSettings()
    upkeep: UpkeepSettings = UpkeepSettings()
    hook: list[HookSettings] = Field(default=[])

    @field_validator("download_hosts")
    @classmethod
    def _hosts(cls, entries: list[str]) -> list[str]:
        from .download_source import host_entries  # late: the client library takes its time

        host_entries(entries)
        return entries

    @field_validator("upstream")
    @classmethod
    def _upstream(cls, address: str | None) -> str | None:
        from .upstream import check_address  # late, as above

        return None if not address else check_address(address)

    @model_validator(mode="after")
    def _one_process(self) -> Self:
        if self.workers != 1:
            raise ValueError("workers: event streams and queues are one process's; remove it")
        return self
