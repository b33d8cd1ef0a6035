"""Google Drive as a place, through its real library, on a double of its API."""

from __future__ import annotations

import logging
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from tests.conftest import SOAK
from tests.kvstore import many_large_writes
from tests.kvstore.filled_folders import in_double
from tests.servers.double import Double, Fault
from tests.servers.double_process import DoubleProcess
from tests.servers.drive_double import DriveDouble
from tests.servers.drive_double import Service as DriveService
from tests.servers.tls import make_certificate

from backupgw.kvstore import open_place
from backupgw.kvstore.backends import grants
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.entry_items import KNOWN
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    BackendURLInvalid,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)
from backupgw.kvstore.backends.loopback import Loopback
from backupgw.kvstore.conformance import Check, Status, Subject, checks

PART = 1 << 20


class Keys(NamedTuple):
    """What the double lets in."""

    refresh_token: str
    client_id: str
    client_secret: str


def keys(double: DriveDouble) -> Keys:
    service = double.service
    return Keys(service.refresh_token, service.client_id, service.client_secret)


def account(double: DriveDouble, url: str) -> str:
    return double.service.account(url)


def change(double: DriveDouble, /, **attributes: object) -> None:
    for name, value in attributes.items():
        setattr(double.service, name, value)


def expire(double: DriveDouble) -> None:
    double.service.expire_tokens()


def add_drive(double: DriveDouble, number: str) -> None:
    double.service.add_drive(number)


def requests(double: DriveDouble) -> list[str]:
    found = [f"{call.method} {call.path.split('/')[1]}" for call in double.calls]
    double.calls.clear()
    return found


def named(double: DriveDouble, inside: str, name: str) -> list[bytes | None]:
    """What lies in files of a name within a place, None for those in the trash; folders have no
    bytes."""
    files = double.service.files

    def belongs(number: str) -> bool:
        file = files.get(number)
        return file is not None and (file.name == inside or belongs(file.parent))

    return [
        None if file.trashed else file.data
        for file in files.values()
        if file.name == name and belongs(file.parent)
    ]


def put(double: DriveDouble, folder: str, name: str, data: bytes) -> None:
    """Store another file in a folder: what a stranger may do."""
    service = double.service
    there = next(file for file in service.files.values() if file.name == folder)
    service._create({"name": name, "parents": [there.id]}, data)


def fill_folder(double: DriveDouble, path: str, names: Sequence[str]) -> None:
    folder = double.service.folder(path)
    for name in names:
        double.service._create({"name": name, "parents": [folder.id]}, b"")


def empty_folder(double: DriveDouble, path: str, names: Sequence[str]) -> None:
    wanted, inside = {*names}, double.service.inside(double.service.folder(path))
    for file in [file for file in inside if file.name in wanted]:
        double.service._remove(file)


@pytest.fixture(scope="module")
def double() -> Iterator[DoubleProcess[DriveDouble]]:
    with DoubleProcess(DriveDouble) as double:
        yield double


@pytest.fixture(scope="module")
def options(double: DoubleProcess[DriveDouble]) -> dict[str, Any]:
    return {"endpoint": double.url, "part_size": PART, **double.tell(keys)._asdict()}


@pytest.fixture(scope="module")
def subject(double: DoubleProcess[DriveDouble], options: dict[str, Any]) -> Iterator[Subject]:
    make = partial(open_place, "gdrive:Backups/conformance", **options)
    fill = in_double(double, fill_folder, empty_folder, "Backups/conformance")
    with Subject(make, soak=SOAK, scale=0.1, fill=fill, remembers=KNOWN) as subject:
        yield subject


LONG = () if SOAK else ("listing.list_streams",)
"""It wants more entries than a few pages of a listing have."""


@pytest.mark.parametrize("check", [each for each in checks if each.name not in LONG], ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note


@pytest.fixture
def place(
    double: DoubleProcess[DriveDouble], options: dict[str, Any], request: pytest.FixtureRequest
) -> Iterator[Backend]:
    """A fresh place on a service that works."""
    place = open_place(f"gdrive:{request.node.name[:60]}", **options)
    place.create()
    with place:
        yield place
        double.fail()
        double.tell(
            change,
            revoked=False,
            limited=0,
            persists=None,
            room=1 << 40,
            may_delete=True,
            tells_hashes=False,
            lag=0.0,
        )


def url_of(place: Backend) -> str:
    return repr(place).split("'")[1]


def test_memory_of_many_large_writes(
    place: Backend, options: dict[str, Any], tmp_path: Path
) -> None:
    usual = {name: value for name, value in options.items() if name != "part_size"}
    peak = many_large_writes.peak(url_of(place), usual, tmp_path)
    assert peak < many_large_writes.CEILING


class TestRequests:
    """What an operation costs: Google counts requests."""

    def test_a_new_item_takes_two_once_its_folder_is_known(
        self, place: Backend, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        place.store("data/00/first", b"value")
        double.tell(requests)
        with place.open_writer("data/00/second", if_absent=True) as writer:
            writer.write(b"value")
        assert double.tell(requests) == ["POST upload", "GET drive"]
        place.load("data/00/second")
        assert double.tell(requests) == ["GET drive"]
        with place.open_writer("data/00/large", if_absent=True) as writer:
            writer.write(bytes(2 * PART + 1))
        assert double.tell(requests) == [
            "POST upload",
            "PUT upload",
            "PUT upload",
            "GET drive",
            "PUT upload",
            "GET drive",
        ]
        place.delete("data/00/second")
        assert double.tell(requests) == ["GET drive", "DELETE drive"]
        told: list[str] = []
        with open_place(url_of(place), on_call=told.append, **options) as counted:
            counted.load("data/00/large")
        assert told[-2:] == ["files.list", "files.get"]

    def test_many_folders_take_one_each(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        double.tell(requests)
        place.mkdirs(f"{number:02x}" for number in range(64))
        assert len(double.tell(requests)) <= 64 + 4
        assert len([*place.list("")]) == 64

    def test_a_repositorys_folders_are_listed_many_by_one(
        self,
        place: Backend,
        double: DoubleProcess[DriveDouble],
        options: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # On a busy machine, what was fetched would be too old before it is asked for.
        monkeypatch.setattr("backupgw.kvstore.backends.listing_ahead._VALID", 1000.0)
        folders = [f"data/{number:02x}" for number in range(120)]
        place.mkdirs(folders)
        with ThreadPoolExecutor(8) as pool:
            [*pool.map(lambda folder: place.store(f"{folder}/blob", b"value"), folders)]
        with open_place(url_of(place), **options) as fresh:
            double.tell(requests)
            found = {
                f"data/{folder.name}": [item.name for item in fresh.list(f"data/{folder.name}")]
                for folder in fresh.list("data")
            }
            asked = double.tell(requests)
        assert len(asked) <= 10, " ".join(asked)
        assert found == {folder: ["blob"] for folder in folders}

    def test_what_changes_meanwhile_is_listed(
        self, place: Backend, options: dict[str, Any]
    ) -> None:
        place.mkdirs(f"data/{number:02x}" for number in range(40))
        place.store("data/25/old", b"value")
        names = sorted(folder.name for folder in place.list("data"))
        with open_place(url_of(place), **options) as other:
            other.rmdir("data/27")  # as others do: nothing that is asked together fails of it
        for name in names[:5]:
            assert [*place.list(f"data/{name}")] == []
        place.delete("data/25/old")
        place.store("data/26/new", b"value")
        assert [*place.list("data/24")] == []
        assert [*place.list("data/25")] == []
        assert [item.name for item in place.list("data/26")] == ["new"]
        assert [*place.list("data/20")] == []

    def test_short_pages_are_read_to_the_end(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        names = [f"item{number:02}" for number in range(23)]
        for name in names:
            place.store(f"folder/{name}", b"")
        double.tell(change, most=5)
        assert sorted(item.name for item in place.list("folder")) == names
        double.tell(change, most=1000)


class TestNames:
    """Drive knows no unique names; we do."""

    def test_of_two_files_of_a_name_the_older_counts_for_everybody(
        self, place: Backend, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        place.store("item", b"older")
        double.tell(put, url_of(place)[7:], "item", b"younger")
        with open_place(url_of(place), **options) as other:
            for each in (place, other):
                assert each.load("item") == b"older"
                assert [(e.name, e.size) for e in each.list("")] == [("item", 5)]
            other.store("item", b"the newest")
            assert place.load("item") == b"the newest"
            place.delete("item")
            assert not other.info("item").exists, "the younger one does not come to light"

    def test_gateways_that_do_not_see_each_other_agree_afterwards(
        self, place: Backend, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        with open_place(url_of(place), **options) as other:
            double.tell(change, lag=3600.0)
            for number, each in enumerate((place, other)):
                with each.open_writer("folder/item", if_absent=True) as writer:
                    writer.write(b"from %d" % number)
                each.store(f"folder/own-{number}", b"value")
            double.tell(change, lag=0.0)
        assert len(double.tell(named, url_of(place)[7:], "folder")) == 2
        names = ["item", "own-0", "own-1"]
        for _ in range(2):
            with open_place(url_of(place), **options) as fresh:
                assert sorted(entry.name for entry in fresh.list("folder")) == names
                assert fresh.load("folder/item") == b"from 0"
                assert fresh.load("folder/own-1") == b"value"

    def test_threads_and_gateways_make_one_folder(
        self, place: Backend, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        def work(number: int) -> None:
            place.store(f"shared/deep/{number}", b"value")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(double.tell(named, url_of(place)[7:], "deep")) == 1
        assert len([*place.list("shared/deep")]) == 8

    @pytest.mark.parametrize("large", [False, True])
    def test_who_comes_second_takes_its_own_back(
        self, place: Backend, double: DoubleProcess[DriveDouble], large: bool
    ) -> None:
        value = bytes(2 * PART + 1) if large else b"second"
        writer = place.open_writer("item", if_absent=True)
        writer.write(value)
        place.store("item", b"first")
        with pytest.raises(ObjectExists):
            writer.commit()
        assert double.tell(named, url_of(place)[7:], "item") == [b"first"]
        place.delete("item")
        writer.commit()
        assert place.load("item") == value

    def test_names_that_differ_in_case_are_two(self, place: Backend) -> None:
        place.store("Name", b"upper")
        with place.open_writer("name", if_absent=True) as writer:
            writer.write(b"lower")
        assert (place.load("Name"), place.load("name")) == (b"upper", b"lower")

    def test_what_strangers_put_there_is_no_item(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        place.store("item", b"value")
        double.tell(put, url_of(place)[7:], "with/slash", b"x")
        assert [entry.name for entry in place.list("")] == ["item"]


class TestRemoving:
    def test_for_ever_or_into_the_trash(
        self, place: Backend, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        place.store("gone", b"value")
        place.delete("gone")
        assert double.tell(named, url_of(place)[7:], "gone") == []
        with open_place(url_of(place), trash=True, **options) as careful:
            careful.store("kept", b"value")
            careful.delete("kept")
            assert double.tell(named, url_of(place)[7:], "kept") == [None]
            assert not careful.info("kept").exists
            with pytest.raises(ObjectNotFound):
                careful.load("kept")

    def test_an_account_that_may_not_delete_for_ever(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        place.store("item", b"value")
        double.tell(change, may_delete=False)
        with pytest.raises(PermissionDenied, match="permissions"):
            place.delete("item")

    def test_a_folder_that_another_gateway_removed_is_made_again(
        self, place: Backend, options: dict[str, Any]
    ) -> None:
        place.store("folder/first", b"value")
        with open_place(url_of(place), **options) as other:
            other.delete("folder/first")
            other.rmdir("folder")
            place.store("folder/second", b"value")
            with place.open_writer("folder/large") as writer:
                writer.write(bytes(2 * PART + 1))
            assert sorted(e.name for e in other.list("folder")) == ["large", "second"]


class TestFaults:
    @pytest.mark.parametrize("hashes", [False, pytest.param(True, marks=pytest.mark.soak)])
    def test_a_fifth_of_the_requests_fails(
        self, place: Backend, double: DoubleProcess[DriveDouble], hashes: bool
    ) -> None:
        double.tell(change, persists=512 << 10, tells_hashes=hashes)
        double.fail(
            rate=0.2,
            seed=5,
            kinds=[Fault.UNAVAILABLE, Fault.TOO_MANY, Fault.RESET, Fault.LOST, Fault.CUT],
        )
        value = bytes(range(256)) * 10_000
        for number in range(6):
            with place.open_writer(f"items/{number}", if_absent=True) as writer:
                writer.write(value[: 1000 * number])
        for terms in ({"if_absent": True}, {}):
            with place.open_writer("items/large", **terms) as writer:  # type: ignore[arg-type]
                writer.write(value)
        place.move("items/1", "moved/1")
        place.delete("items/2")
        assert place.load("items/large") == value
        double.fail()
        names = sorted(entry.name for entry in place.list("items"))
        assert names == ["0", "3", "4", "5", "large"]
        assert place.load("moved/1") == value[:1000]
        for name in ("0", "3", "large", "moved", "items"):
            assert len(double.tell(named, url_of(place)[7:], name)) == 1, f"{name} is there once"

    def test_limits_of_requests_are_waited_out(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        double.tell(change, limited=3)
        place.store("item", b"value")
        double.tell(change, limited=1)
        assert place.load("item") == b"value"

    @pytest.mark.parametrize("size", [5, 2 * PART + 5])
    def test_a_reply_that_was_lost_is_no_conflict(
        self, place: Backend, double: DoubleProcess[DriveDouble], size: int
    ) -> None:
        place.store("before", b"value")
        double.fail(rate=1, kinds=[Fault.LOST], limit=3)
        with place.open_writer("item", if_absent=True) as writer:
            writer.write(bytes(size))
        double.fail()
        assert double.tell(named, url_of(place)[7:], "item") == [bytes(size)]

    def test_reading_goes_on_in_the_value_that_it_began_or_says_so(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        value = bytes(range(256)) * 10_000
        place.store("item", value)
        double.fail(rate=1, kinds=[Fault.CUT], limit=3)
        assert place.load("item", offset=100) == value[100:]
        double.fail(rate=1, kinds=[Fault.CUT], limit=1)
        with place.open_reader("item") as reader:
            reader.read(1000)
            place.store("item", bytes(len(value)))
            with pytest.raises(BackendError, match="replaced"):
                [*iter(lambda: reader.read(1 << 20), b"")]

    def test_a_grant_that_was_withdrawn_names_the_way_back(
        self, place: Backend, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        place.store("item", b"value")
        double.tell(change, revoked=True)
        for attempt in (lambda: place.load("item"), lambda: place.store("item", b"x")):
            with pytest.raises(PermissionDenied, match="backupgw store auth NAME") as caught:
                attempt()
            assert not caught.value.retryable
            assert str(options["refresh_token"]) not in f"{caught.value!r} {place!r}"

    def test_an_access_token_that_expired_is_renewed(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        double.tell(expire)
        place.store("item", b"value")
        double.tell(expire)
        assert place.load("item") == b"value"

    def test_a_full_account(self, place: Backend, double: DoubleProcess[DriveDouble]) -> None:
        double.tell(change, room=1000)
        for size in (2000, 2 * PART):
            with pytest.raises(StorageFull, match="no room"):
                place.store("item", bytes(size))
        assert not place.info("item").exists
        assert place.quota().limit == 1000

    def test_killed_and_started_again_in_the_middle(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        value = bytes(range(256)) * (PART // 64)
        with place.open_writer("item", size=len(value)) as writer:
            writer.write(value[: 2 * PART + 1])
            double.kill()
            back = threading.Timer(1, double.start)
            back.start()
            writer.write(value[2 * PART + 1 :])
        back.join()
        assert place.load("item") == value

    def test_an_answer_that_does_not_come_is_asked_for_again(
        self, place: Backend, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        place.store("item", b"value")
        with open_place(url_of(place), **{**options, "timeout": 1}) as hasty:
            double.fail(rate=1, kinds=[Fault.STALL], stall=4, limit=2)
            assert hasty.load("item") == b"value"

    def test_a_checkpoint_holds_no_address_of_an_upload(self, place: Backend) -> None:
        writer = place.open_writer("item")
        writer.write(bytes(PART + 1))
        token = writer.checkpoint()
        assert "upload_id" not in token
        assert "http" not in token
        place.resume_writer(token).commit()
        assert place.info("item").size == PART + 1

    def test_nobody_there_is_an_error_that_may_pass(self, options: dict[str, Any]) -> None:
        quick = {**options, "endpoint": "http://127.0.0.1:9", "attempts": 2}
        with pytest.raises(BackendConnectionError) as caught:
            open_place("gdrive:x", **quick).open()
        assert caught.value.retryable


class TestSharedDrives:
    def test_a_service_account_in_a_shared_drive(
        self, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        double.tell(add_drive, "0AnDriveOfAll")
        key = double.tell(account, double.url)
        of_all = {"endpoint": options["endpoint"], "service_account": key, "shared_drive": True}
        place = open_place("gdrive://0AnDriveOfAll/Backups", **of_all)
        place.create()
        with place:
            place.store("folder/item", b"value")
            assert place.load("folder/item") == b"value"
            assert place.quota().limit == -1
        place.destroy()
        with pytest.raises(BackendDoesNotExist, match="no such folder"):
            place.open()

    def test_one_that_is_not_there(self, options: dict[str, Any]) -> None:
        with pytest.raises(BackendDoesNotExist, match="does not see"):
            open_place("gdrive://0NoSuchDrive/x", shared_drive=True, **options).open()


def asked(address: str) -> int:
    """Ask for a page as a browser does; returns the status."""
    try:
        with urllib.request.urlopen(address) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


class TestGrants:
    """A person agrees in a browser, which then shows an address that it cannot open."""

    @pytest.fixture
    def secure(self, tmp_path: Path) -> Iterator[tuple[Double, dict[str, Any]]]:
        certificate = make_certificate(tmp_path)
        service = DriveService()
        with Double(service, certificate=certificate) as double:
            yield (
                double,
                {
                    "endpoint": double.url,
                    "client_id": service.client_id,
                    "client_secret": service.client_secret,
                    "cacert": str(certificate.authority),
                },
            )

    def agree(self, double: Double, page: str, authority: str) -> str:
        import ssl

        class NoRedirect(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any, **__: Any) -> None:
                return None

        context = ssl.create_default_context(cafile=authority)
        secure = urllib.request.HTTPSHandler(context=context)
        browser = urllib.request.build_opener(NoRedirect, secure)
        parts = urlsplit(page)
        with pytest.raises(urllib.error.HTTPError) as redirected:
            browser.open(f"{double.url}{parts.path}?{parts.query}")
        redirected.value.close()
        return str(redirected.value.headers["location"])

    def test_the_address_brings_the_grant(self, secure: tuple[Double, dict[str, Any]]) -> None:
        double, options = secure
        service: Any = double._application
        grant = grants.begin("gdrive:x", options)
        address = self.agree(double, grant.visit, options["cacert"])
        assert address.startswith("http://127.0.0.1:")
        assert grant.option == "refresh_token"
        assert "address" in grant.brings
        assert grant.finish(f" {address}\n") == service.refresh_token
        place = open_place("gdrive:x", refresh_token=service.refresh_token, **options)
        place.create()
        with place:
            place.store("item", b"value")

    def test_a_browser_of_this_machine_brings_it(
        self, secure: tuple[Double, dict[str, Any]]
    ) -> None:
        double, options = secure
        service: Any = double._application
        with Loopback() as here:
            grant = grants.begin("gdrive:x", options, here.address)
            assert grant.is_answer is not None
            address = self.agree(double, grant.visit, options["cacert"])
            assert address.startswith(here.address)
            with ThreadPoolExecutor(1) as browser:
                for other in (
                    here.address,
                    f"{here.address}favicon.ico",
                    re.sub("state=[^&]*", "state=another", address),
                    re.sub("&state=[^&]*", "", address),
                    address.replace("127.0.0.1", "localhost"),  # a page that names us otherwise
                ):
                    shown = browser.submit(asked, other)
                    assert here.answer(grant.is_answer) is None
                    assert shown.result() == 404
                shown = browser.submit(asked, address)
                answer = here.answer(grant.is_answer)
                assert shown.result() == 200
            assert answer == address
            assert grant.finish(answer) == service.refresh_token

    def test_no_log_tells_a_secret(
        self, secure: tuple[Double, dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        double, options = secure
        service: Any = double._application
        with caplog.at_level(logging.DEBUG):
            grant = grants.begin("gdrive:x", options)
            token = grant.finish(self.agree(double, grant.visit, options["cacert"]))
            place = open_place("gdrive:x", refresh_token=token, part_size=1 << 20, **options)
            place.create()
            with place:
                place.store("item", bytes(3 << 20))
                place.load("item")
        ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]
        said = "".join(f"{record.getMessage()} {record.__dict__}" for record in ours)
        assert said, "at this level something is told"
        for secret in (token, service.client_secret, "upload_id", *service._tokens):
            assert secret not in said

    def test_the_code_alone_does_as_well(self, secure: tuple[Double, dict[str, Any]]) -> None:
        double, options = secure
        grant = grants.begin("gdrive:x", options)
        address = self.agree(double, grant.visit, options["cacert"])
        code = re.search(r"code=([^&]+)", address)
        assert code is not None
        service: Any = double._application
        assert grant.finish(code[1]) == service.refresh_token

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            ("wrong", "begin again"),
            ("http://127.0.0.1:53671/?error=access_denied", "access_denied"),
            ("http://127.0.0.1:53671/?code=4/x&state=another", "another attempt|this attempt"),
        ],
    )
    def test_answers_that_bring_none(
        self, secure: tuple[Double, dict[str, Any]], answer: str, message: str
    ) -> None:
        with pytest.raises(PermissionDenied, match=message):
            grants.begin("gdrive:x", secure[1]).finish(answer)

    def test_without_an_app(self) -> None:
        with pytest.raises(BackendURLInvalid, match="client_id"):
            grants.begin("gdrive:x", {})


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "changed", "message"),
        [
            ("gdrive:a/../b", {}, "segment"),
            ("gdrive:/a", {}, "gdrive:FOLDER"),
            ("gdrive:a", {"refresh_token": None}, "backupgw store auth"),
            ("gdrive:a", {"service_account": "{}"}, "backupgw store auth"),
            ("gdrive:a", {"client_secret": None}, "client_secret"),
            ("gdrive:a", {"subject": "x@y"}, "subject"),
            ("gdrive:a", {"scope": "all"}, "scope"),
            ("gdrive:a", {"part_size": 5}, "part_size"),
            ("gdrive:a", {"shared_drive": True}, "gdrive://ID"),
        ],
    )
    def test_mistakes_are_named(
        self, url: str, changed: dict[str, Any], message: str, options: dict[str, Any]
    ) -> None:
        with pytest.raises(BackendURLInvalid, match=message):
            open_place(url, **{**options, **changed})

    def test_a_folder_that_is_not_there(self, options: dict[str, Any]) -> None:
        with pytest.raises(BackendDoesNotExist, match="gdrive:nowhere"):
            open_place("gdrive:nowhere", **options).open()

    def test_a_whole_drive_is_not_destroyed(self, options: dict[str, Any]) -> None:
        with pytest.raises(BackendError, match="whole drive"):
            open_place("gdrive:", **options).destroy()


def test_folders_are_folders(place: Backend) -> None:
    place.mkdir("name")
    place.store("item", b"value")
    for name in ("name", "item/below"):
        with pytest.raises(BackendError, match="folder"):
            place.store(name, b"x")
    assert place.info("name").directory
    assert place.load("item") == b"value"
