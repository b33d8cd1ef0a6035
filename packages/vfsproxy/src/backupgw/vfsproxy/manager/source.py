"""A Manager as the source of users and permissions (`[vfs.manager]`).

What it says of a user is taken over into our own tables before the user's request is looked at, so
that permissions are decided in one place, and remembered for a while in the cache. While it does
not answer, what it said last is believed for some time; after that its users are turned away.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from backupgw.runtime.cache import Cache
from backupgw.runtime.database import Connection

from .. import audit
from ..accounts import PREFIX
from ..folders import catalogue, people
from ..folders.people import Standing
from ..folders.records import Holder, Kind, Limits, Permission, Share
from ..identity import Identity, job_of
from ..names import SUBJECT_NAME
from ..problems import Problem
from .address import ManagerAddress

if TYPE_CHECKING:
    from ..core import Core
    from ..settings import ManagerSourceSettings

log = logging.getLogger(__name__)

LARGEST = 1 << 20
"""Bytes of an answer."""
CREATOR = "(manager)"
"""Who has given the shares that the Manager names; no user can be called so."""
TOLD = 1000
"""Accounts told in one request."""

_FOUND, _UNKNOWN = "found", "unknown"


class _LimitsAnswer(BaseModel):
    model_config = ConfigDict(extra="ignore")
    bytes: int | None = None
    files: int | None = None


class UserAnswer(BaseModel):
    """What a Manager says of a user; a member that is missing says nothing."""

    # A Manager may say more than we understand.
    model_config = ConfigDict(extra="ignore")

    admin: bool | None = None
    disabled: bool | None = None
    groups: dict[str, bool] | None = None
    folders: dict[str, Permission] | None = None
    limits: _LimitsAnswer | None = None


class ManagerSource:
    """Asks the Manager. For any thread.

    Args:
        cache: where answers are remembered; closed by whoever opened it.
        address: where it is.
    """

    def __init__(
        self,
        core: Core,
        settings: ManagerSourceSettings,
        cache: Cache,
        address: ManagerAddress | None = None,
    ) -> None:
        self._core = core
        self._settings = settings
        self._address = address or ManagerAddress(core.settings, settings)
        self._cache = cache
        self._asking = threading.Lock()
        headers = {"accept": "application/json"}
        if settings.token is not None:
            headers["x-backendai-storage-auth-token"] = settings.token.reveal()
        self._client = httpx.Client(
            timeout=settings.timeout, headers=headers, follow_redirects=False, trust_env=False
        )

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def known(self, who: Identity) -> bool:
        """Whether nothing has to be asked for a request, where that needs no waiting to tell."""
        if who.via != "token":
            return True
        return not self._cache.blocking and self._cache.get(_key(who.user)) == _FOUND

    def refresh(self, who: Identity) -> None:
        """Take over what the Manager says of who asks, unless that was done a moment ago.

        Raises:
            Problem: 403, it does not know the user; 503, it has not answered for too long.
        """
        if who.via != "token":
            return
        said = self._cache.get(_key(who.user))
        if said is None:
            with self._asking:  # one at a time: they all ask the same
                said = self._cache.get(_key(who.user)) or self._ask(who.user)
        if said == _UNKNOWN:
            raise Problem(403, "user-unknown", "the manager does not know this user")

    def _ask(self, user: str) -> str:
        try:
            answer = self._request("GET", f"users/{quote(user, safe='')}")
            if answer.status_code == 404:
                said = _UNKNOWN
            else:
                answer.raise_for_status()
                if len(answer.content) > LARGEST:
                    raise ValueError("its answer is too long")
                said = _FOUND
                self._take_over(user, UserAnswer.model_validate_json(answer.content))
        except (httpx.HTTPError, ValidationError, ValueError) as error:
            # Not the error's own text: it may repeat the URL or the answer.
            log.warning("the manager was not understood about a user: %s", type(error).__name__)
            said = str(self._cache.get(_stale(user)) or "")
            if not said:
                raise Problem(
                    503,
                    "try-later",
                    "the manager, which knows the users, does not answer",
                    headers=[(b"retry-after", b"5")],
                ) from error
            # Asked again soon, but not by every request.
            self._cache.set(_key(user), said, min(self._settings.ttl, 5.0))
            return said
        self._cache.set(_key(user), said, self._settings.ttl)
        self._cache.set(_stale(user), said, self._settings.ttl + self._settings.stale + 1e-3)
        return said

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask the Manager, at its new address where it has one. Raises httpx.HTTPError."""
        try:
            return self._client.request(method, f"{self._address.url}/{path}", **more)
        except httpx.TransportError:
            if not self._address.look_again():
                raise
            return self._client.request(method, f"{self._address.url}/{path}", **more)

    # -- into our own tables

    def _take_over(self, user: str, answer: UserAnswer) -> None:
        limits = None
        if self._settings.quotas and answer.limits is not None:
            limits = Limits(answer.limits.bytes, answer.limits.files)
        holder = Holder(Kind.USER, user)

        def work(connection: Connection) -> bool:
            people.ensure_user(connection, user)
            standing = people.standing(connection, user)
            changed = self._standing(connection, user, standing, answer)
            if answer.folders is not None:
                changed |= _shares(connection, holder, answer.folders)
            if limits is not None and people.limits_of(connection, holder) != limits:
                people.set_limits(connection, holder, limits)
                changed = True
            if changed:
                audit.note(connection, job_of("manager"), "user.synchronise", subject=user)
            return changed

        self._core.database.run(work, idempotent=True)
        if limits is not None:
            self._core.accounts.set_limits(holder.scope, limits)

    def _standing(
        self, connection: Connection, user: str, known: Standing, answer: UserAnswer
    ) -> bool:
        changed = False
        for name, was, said in (
            ("admin", known.admin, answer.admin),
            ("disabled", known.disabled, answer.disabled),
        ):
            if said is not None and said != was:
                people.change_user(connection, user, **{name: said})
                changed = True
        if answer.groups is None:
            return changed
        wanted = {
            name: admin for name, admin in answer.groups.items() if SUBJECT_NAME.fullmatch(name)
        }
        for name, admin in wanted.items():
            if known.groups.get(name) is not admin:
                people.make_group(connection, name)
                people.set_member(connection, name, user, admin=admin)
                changed = True
        for name in known.groups.keys() - wanted.keys():
            people.remove_member(connection, name, user)
            changed = True
        return changed

    # -- and back

    def tell_usage(self, volume: str) -> int:
        """Tell the Manager what users and groups hold; return how many were told.

        A Manager that does not want to know is no failure of a scan: it is logged.
        """
        if not self._settings.quotas:
            return 0
        items = []
        for usage in self._core.accounts.ledger.usages():
            kind, _, name = usage.scope.removeprefix(PREFIX).partition(":")
            if usage.scope.startswith(PREFIX) and kind in ("user", "group"):
                items.append(
                    {
                        "kind": kind,
                        "name": name,
                        "used_bytes": max(0, usage.used.bytes),
                        "used_files": max(0, usage.used.objects),
                    }
                )
        for start in range(0, len(items), TOLD):
            document = {"volume": volume, "items": items[start : start + TOLD]}
            try:
                self._request("POST", "usage", json=document).raise_for_status()
            except httpx.HTTPError as error:
                log.warning("the manager was not told of usage: %s", type(error).__name__)
                return start
        return len(items)


def _shares(connection: Connection, subject: Holder, wanted: dict[str, Permission]) -> bool:
    changed = False
    given = catalogue.given_by(connection, subject, CREATOR)
    for folder_id, permission in wanted.items():
        folder = catalogue.find(connection, folder_id)
        if folder is None or folder.holder == subject or permission is Permission.OWNER:
            continue
        if given.get(folder_id) is not permission:
            now = catalogue.now(connection)
            catalogue.share(connection, Share(folder_id, subject, permission, now, CREATOR))
            changed = True
    for folder_id in given.keys() - wanted.keys():
        catalogue.unshare(connection, folder_id, subject)
        changed = True
    return changed


def _key(user: str) -> str:
    return f"user:{user}:manager"


def _stale(user: str) -> str:
    return f"user:{user}:manager:last"
