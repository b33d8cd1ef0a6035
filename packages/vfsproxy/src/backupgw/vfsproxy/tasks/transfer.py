"""A folder gets another owner, and what it holds counts towards theirs from then on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from backupgw.kvstore.ledger import NOTHING, Amount, Effect, LimitExceeded
from backupgw.runtime.database import DatabaseConflict
from backupgw.runtime.jobs import Job, JobContext, JobFailed

from .. import audit
from ..accounts import place_of
from ..folders import catalogue, people
from ..folders.access import require
from ..folders.lifecycle import not_ready
from ..folders.records import Folder, Holder, Kind, Permission, Status
from ..identity import Identity, job_of
from ..problems import Problem, not_found
from .arguments import TransferTask
from .board import key_of
from .scanning import count_anew
from .working import working

if TYPE_CHECKING:
    from ..core import Core

_COUNT = "count"


def submit_transfer(core: Core, who: Identity, folder_id: str, to: Holder) -> Job:
    """Have a folder given to somebody.

    An administrator gives to anybody; an owner to a group that they administer, or to themselves:
    what others' limits have room for is not theirs to use up.

    Raises:
        Problem: 403, 404, 409 while uploads are under way or it is theirs already.
    """
    with core.database.read() as connection:
        folder, permission = core.folders.look_up(connection, who, folder_id)
        require(permission, Permission.OWNER)
        standing = core.folders.standing(connection, who)
        if to.kind is Kind.GROUP and people.find_group(connection, to.name) is None:
            raise not_found("group")
        takes = to.name == who.user if to.kind is Kind.USER else standing.groups.get(to.name, False)
        if not takes and not standing.admin:
            raise Problem(403, "permission-denied", f"whether {to} takes it is not yours to say")
        if folder.holder == to:
            raise Problem(409, "owner", f"the folder is {to}'s already")
        if catalogue.named(connection, to, folder.name) is not None:
            raise Problem(409, "folder-exists", f"{to} has a folder {folder.name!r} already")
    if folder.status is not Status.READY:
        raise not_ready(folder)
    return core.tasks.submit(
        "vfs.transfer",
        TransferTask(folder=folder_id, actor=who.user, kind=to.kind.value, owner=to.name),
        key=key_of(folder_id),
    )


class Transfer:
    """What the task does: fence the folder off, move the amounts in one step of the ledger, give
    the folder away. Where it dies in between, the next attempt counts the volume anew."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, context: JobContext, task: TransferTask) -> Mapping[str, object]:
        """Give the folder away."""
        core = self._core
        to = Holder(Kind(task.kind), task.owner)
        with core.database.read() as connection:
            known = catalogue.find(connection, task.folder)
            limits = core.accounts.limits_of(connection, to)
        if known is not None and known.holder == to and known.status is Status.READY:
            # An attempt before this one has given it away.
            if context.step("accounts", lambda: "moved", unsure=lambda: _COUNT) == _COUNT:
                count_anew(core, core.volumes.of(known), context)
            return {"owner": str(to)}
        core.accounts.set_limits(to.scope, limits)
        with working(
            core,
            context,
            task.folder,
            expected=(Status.READY,),
            during=Status.PERFORMING,
            failed=Status.READY,
        ) as folder:
            how = context.step("accounts", lambda: self._move(folder, to), unsure=lambda: _COUNT)
            try:
                self._give(task, folder, to)
            except DatabaseConflict as error:
                if how != _COUNT:
                    self._move(folder, to, back=True)
                raise JobFailed(f"{to} has a folder {folder.name!r} already") from error
        if how == _COUNT:
            count_anew(core, core.volumes.of(folder), context)
        return {"owner": str(to)}

    def _move(self, folder: Folder, to: Holder, *, back: bool = False) -> str:
        """Let what the folder holds count towards its new owner; all of it, or a refusal."""
        ledger = self._core.accounts.ledger
        usage = ledger.usage(folder.scope)
        if usage.reserved != NOTHING:
            raise JobFailed("uploads into the folder are under way")
        held = Amount(usage.used.bytes, usage.used.objects)
        giver, taker = (to, folder.holder) if back else (folder.holder, to)
        place = place_of(folder.volume)
        names = [folder.path, folder.snapshots]
        effects = [
            Effect(names[0], (giver.scope,), held, NOTHING),
            Effect(names[1], (taker.scope,), NOTHING, held),
        ]
        with ledger.changing(place, names):
            try:
                change = ledger.intend(place, effects)
            except LimitExceeded as error:
                raise JobFailed(f"{to} has no room for it: {error}") from error
            ledger.settle(change)
        return "moved"

    def _give(self, task: TransferTask, folder: Folder, to: Holder) -> None:
        core = self._core
        with core.fences.exclusive(folder.id) as connection:
            if to.kind is Kind.USER:
                people.ensure_user(connection, to.name)
            catalogue.unshare(connection, folder.id, to)
            catalogue.change(
                connection,
                folder.id,
                kind=to.kind,
                owner=to.name,
                status=Status.READY,
                job=None,
                generation=folder.generation + 1,
            )
            audit.note(
                connection,
                job_of(task.actor),
                "folder.transfer",
                folder=folder.id,
                subject=to,
                was=folder.holder,
            )
