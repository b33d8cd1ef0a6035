"""Who may do what with a folder's files, exactly as long as the folder is what it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backupgw.kvstore.backends.errors import BackendError, ObjectExists, PermissionDenied
from backupgw.kvstore.ledger import LimitExceeded
from backupgw.kvstore.names import InvalidName
from backupgw.runtime.authorisation import Principal, Scope
from backupgw.vfsproxy.folders import catalogue, people
from backupgw.vfsproxy.folders.access import FolderAccess
from backupgw.vfsproxy.folders.lifecycle import Wanted
from backupgw.vfsproxy.folders.records import Folder, Holder, Kind, Limits, Permission, Share
from backupgw.vfsproxy.identity import MANAGER, Identity
from backupgw.vfsproxy.problems import FolderChanged, Problem

from .conftest import Inside, user

ALICE, BOB = user("alice"), user("bob")


def made(inside: Inside, who: Identity = ALICE, **wanted: object) -> Folder:
    return inside.lifecycle.create(who, Wanted(**{"name": "docs", **wanted}))  # type: ignore[arg-type]


def shared(inside: Inside, folder: Folder, subject: Holder, permission: Permission) -> None:
    with inside.core.database.begin() as connection:
        catalogue.share(connection, Share(folder.id, subject, permission, 0.0, "alice"))


def opened(inside: Inside, who: Identity, folder: Folder, needed: Permission) -> FolderAccess:
    return inside.core.folders.resolve(who, folder.id, needed)


def test_strangers_learn_nothing_of_a_folder(inside: Inside) -> None:
    folder = made(inside)
    with pytest.raises(Problem) as refused:
        opened(inside, BOB, folder, Permission.READ_ONLY)
    assert refused.value.status == 404
    assert inside.lifecycle.listed(BOB, after="", limit=10) == []


def test_of_several_who_make_a_folder_of_one_id_one_does(inside: Inside) -> None:
    """A manager that asks again, because no answer came, finds the folder that its first request
    has made: there, and with its limits."""
    for number in range(1, 11):
        wanted = [
            Wanted(
                name=f"{number:032x}", id=f"{number:032x}", path=f"of/{number}",
                limits=Limits(bytes=size),
            )
            for size in range(6)
        ]  # fmt: skip
        begin = threading.Barrier(len(wanted))

        def make(asked: Wanted, begin: threading.Barrier = begin) -> Folder | Problem:
            begin.wait()
            try:
                return inside.lifecycle.create(MANAGER, asked)
            except Problem as problem:
                return problem

        with ThreadPoolExecutor(len(wanted)) as pool:
            found = list(pool.map(make, wanted))
        [folder] = [each for each in found if isinstance(each, Folder)]
        codes = {each.code for each in found if isinstance(each, Problem)}
        assert codes == {"folder-exists"}
        assert (inside.volume / folder.path).is_dir()
        assert inside.core.accounts.usage(folder.scope).limit == folder.limits.of_ledger()


def test_a_volume_whose_disk_is_not_mounted_is_not_used(tmp_path: Path) -> None:
    """What is written below where it belongs would be hidden when it comes back."""
    first = Inside(tmp_path)
    with first.core:
        folder = made(first)
        opened(first, ALICE, folder, Permission.OWNER).files.store("there", b"1")
    volume = first.volume
    volume.rename(tmp_path / "away")
    for there in (False, True):
        if there:
            volume.mkdir()  # where it is mounted
        with pytest.raises(BackendError, match=r"main: .*/volume holds .* is mounted"):
            Inside(tmp_path).core.open()
        assert volume.exists() == there
        assert not there or list(volume.iterdir()) == []
    volume.rmdir()
    (tmp_path / "away").rename(volume)
    again = Inside(tmp_path)
    with again.core:
        assert opened(again, ALICE, folder, Permission.READ_ONLY).files.load("there") == b"1"
    # The disk is lost: a new one begins empty where its owner says so, as the message tells.
    volume.rename(tmp_path / "lost")
    (volume / "folders").mkdir(parents=True)
    empty = Inside(tmp_path)
    with empty.core:
        opened(empty, ALICE, folder, Permission.OWNER).files.store("new", b"2")


@pytest.mark.parametrize("permission", [p for p in Permission if p is not Permission.OWNER])
def test_a_share_allows_what_it_says_and_no_more(inside: Inside, permission: Permission) -> None:
    folder = made(inside)
    opened(inside, ALICE, folder, Permission.OWNER).files.store("there", b"1")
    shared(inside, folder, Holder(Kind.USER, "bob"), permission)
    files = opened(inside, BOB, folder, permission).files
    assert files.load("there") == b"1"
    writes = permission.includes(Permission.READ_WRITE)
    deletes = permission.includes(Permission.READ_WRITE_DELETE)
    changes: list[tuple[bool, Callable[[], object]]] = [
        (writes, lambda: files.store("new", b"2")),
        (writes, lambda: files.store("there", b"3")),
        (writes, lambda: files.mkdir("folder")),
        (deletes, lambda: files.move("there", "elsewhere")),
        (deletes, lambda: files.delete("elsewhere")),
    ]
    for allowed, change in changes:
        if allowed:
            change()
        else:
            with pytest.raises(PermissionDenied):
                change()
    for other in Permission:
        if not permission.includes(other):
            with pytest.raises(Problem) as refused:
                opened(inside, BOB, folder, other)
            assert refused.value.status == 403


def test_members_have_what_the_group_has_and_administrators_own(inside: Inside) -> None:
    with inside.core.database.begin() as connection:
        people.make_group(connection, "team")
        people.set_member(connection, "team", "alice", admin=True)
        people.set_member(connection, "team", "bob", admin=False)
    team = Holder(Kind.GROUP, "team")
    with pytest.raises(Problem) as refused:
        made(inside, BOB, holder=team)
    assert refused.value.status == 403
    folder = made(inside, ALICE, holder=team, group_permission=Permission.READ_ONLY)
    assert opened(inside, ALICE, folder, Permission.OWNER).permission is Permission.OWNER
    assert opened(inside, BOB, folder, Permission.READ_ONLY).permission is Permission.READ_ONLY
    shared(inside, folder, Holder(Kind.USER, "bob"), Permission.READ_WRITE)
    assert opened(inside, BOB, folder, Permission.READ_WRITE).permission is Permission.READ_WRITE
    with inside.core.database.begin() as connection:
        people.remove_member(connection, "team", "bob")
        catalogue.unshare(connection, folder.id, Holder(Kind.USER, "bob"))
    with pytest.raises(Problem) as gone:
        opened(inside, BOB, folder, Permission.READ_ONLY)
    assert gone.value.status == 404


def test_a_token_narrows_what_its_user_may(inside: Inside) -> None:
    folder = made(inside)
    other = made(inside, name="other")
    reading = Scope.parse(["read-only"], [f"folder:main/{folder.id}"])
    reader = Identity(Principal("alice", reading), "token")
    access = opened(inside, reader, folder, Permission.READ_ONLY)
    assert access.permission is Permission.READ_ONLY
    with pytest.raises(PermissionDenied):
        access.files.store("a", b"")
    for target in (folder, other):
        with pytest.raises(Problem) as refused:
            opened(inside, reader, target, Permission.READ_WRITE)
        assert refused.value.status == 403


def test_a_user_who_is_shut_out_can_do_nothing(inside: Inside) -> None:
    folder = made(inside)
    with inside.core.database.begin() as connection:
        people.change_user(connection, "alice", disabled=True)
    with pytest.raises(Problem) as refused:
        opened(inside, ALICE, folder, Permission.READ_ONLY)
    assert refused.value.code == "user-disabled"


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../outside", "/etc/passwd", ".backupgw/x", "", "a//b", "a\0b"]
)
def test_no_name_leads_out_of_a_folder(inside: Inside, name: str) -> None:
    access = opened(inside, MANAGER, made(inside), Permission.OWNER)
    with pytest.raises(InvalidName):
        access.files.store(name, b"x")
    with pytest.raises(InvalidName):
        access.publish("staged", name, if_absent=True)


def test_a_planted_link_leads_nowhere(inside: Inside, tmp_path: Path) -> None:
    folder = made(inside)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (inside.volume / folder.path / "link").symlink_to(outside)
    files = opened(inside, ALICE, folder, Permission.OWNER).files
    for change in (
        lambda: files.load("link/secret"),
        lambda: files.store("link/planted", b"x"),
        lambda: files.delete("link/secret"),
    ):
        with pytest.raises(BackendError):
            change()
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "secret"


def test_both_the_folder_s_and_its_owner_s_limit_count(inside: Inside) -> None:
    small = made(inside, limits=Limits(bytes=100))
    files = opened(inside, ALICE, small, Permission.OWNER).files
    files.store("a", bytes(100))
    with pytest.raises(LimitExceeded) as full:
        files.store("b", b"x")
    assert full.value.scope == small.scope
    other = opened(inside, ALICE, made(inside, name="other"), Permission.OWNER).files
    inside.core.accounts.set_limits("vfs:user:alice", Limits(files=2))
    other.store("c", bytes(1000))
    with pytest.raises(LimitExceeded) as many:
        other.store("d", b"")
    assert many.value.scope == "vfs:user:alice"
    files.delete("a")
    other.store("d", b"")
    usage = inside.core.accounts.usage("vfs:user:alice")
    assert (usage.used.bytes, usage.used.objects) == (1000, 2)


def test_what_is_staged_counts_and_is_not_listed(inside: Inside) -> None:
    folder = made(inside, limits=Limits(bytes=100))
    access = opened(inside, ALICE, folder, Permission.READ_WRITE)
    access.staging.store("upload-1", bytes(80))
    assert list(access.files.list("")) == []
    with pytest.raises(LimitExceeded):
        access.files.store("a", bytes(21))
    access.files.store("taken", b"")
    with pytest.raises(ObjectExists):
        access.publish("upload-1", "taken", if_absent=True)
    access.publish("upload-1", "sub/final", if_absent=True)
    assert access.files.info("sub/final").size == 80
    usage = inside.core.accounts.usage(folder.scope)
    assert (usage.used.bytes, usage.reserved.bytes) == (80, 0)


def test_a_file_moves_between_folders_with_both_accounts(inside: Inside) -> None:
    one = made(inside, limits=Limits(bytes=100))
    other = made(inside, name="other", limits=Limits(bytes=50))
    source = opened(inside, ALICE, one, Permission.OWNER)
    target = opened(inside, ALICE, other, Permission.OWNER)
    source.files.store("small", bytes(40))
    source.files.store("large", bytes(60))
    source.move_to("small", target, "sub/small", if_absent=True)
    with pytest.raises(LimitExceeded):
        source.move_to("large", target, "large", if_absent=True)
    used = [inside.core.accounts.usage(each.scope).used.bytes for each in (one, other)]
    assert used == [60, 40]
    assert inside.core.accounts.usage("vfs:user:alice").used.bytes == 100
    assert target.files.info("sub/small").size == 40


def test_an_upload_that_outlives_its_folder_is_refused(inside: Inside) -> None:
    folder = made(inside)
    access = opened(inside, ALICE, folder, Permission.READ_WRITE)
    writer = access.files.open_writer("late")
    writer.write(b"too late")
    inside.lifecycle.delete(ALICE, folder.id)
    with pytest.raises(FolderChanged):
        writer.commit()
    writer.abort()
    inside.lifecycle.restore(ALICE, folder.id)
    # The same handle is still one of before: only what is looked up anew may write.
    with pytest.raises(FolderChanged):
        access.files.store("late", b"too late")
    again = opened(inside, ALICE, folder, Permission.READ_WRITE)
    assert list(again.files.list("")) == []
    again.files.store("in time", b"x")
    assert inside.core.accounts.usage(folder.scope).reserved.bytes == 0


def test_deleting_waits_for_the_last_step_of_an_upload(inside: Inside) -> None:
    folder = made(inside)
    deleted = threading.Event()

    def delete() -> None:
        inside.lifecycle.delete(ALICE, folder.id)
        deleted.set()

    with inside.core.fences.shared(folder):
        thread = threading.Thread(target=delete)
        thread.start()
        assert not deleted.wait(0.3)
    thread.join(10)
    assert deleted.is_set()
