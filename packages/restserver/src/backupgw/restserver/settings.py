"""The section [rest] of the settings: rest-server's options and the listener's."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from backupgw.runtime.http.options import HttpOptions


class RestSettings(HttpOptions):
    """Settings of restic's REST server.

    Attributes:
        place: name of the place that holds the repositories.
        htpasswd_file: users and password hashes; default `.htpasswd` in the place's folder.
        no_auth: serve everybody who can connect.
        proxy_auth_username: name of the header in which a trusted proxy hands over the user it
            has authenticated. Whoever can reach the listener can set it.
        append_only: clients can add, but delete nothing except locks.
        private_repos: users have only the repositories below their own name.
        group_accessible_repos: files and folders are made readable and writable for the group.
        verify_upload: refuse an upload that does not hash to its name.
        max_size: bytes that all repositories together may take; 0 sets no limit.
        ledger: file of the accounts that max_size needs, on a local disk; default
            `.backupgw-ledger/ledger.sqlite3` in the place's folder.
        threads: blocking storage calls at a time in each worker.
        cpu_profile: file that receives a profile of the event loop's thread at the end.
    """

    place: str = "default"
    htpasswd_file: Path | None = None
    no_auth: bool = False
    proxy_auth_username: str | None = Field(None, pattern=r"^[A-Za-z0-9-]+$")
    append_only: bool = False
    private_repos: bool = False
    group_accessible_repos: bool = False
    verify_upload: bool = True
    max_size: int = Field(0, ge=0)
    ledger: Path | None = None
    threads: int = Field(24, ge=2, le=512)
    cpu_profile: Path | None = None
