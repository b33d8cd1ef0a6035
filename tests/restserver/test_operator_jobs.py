"""What the server does by the calendar: the trash expires, what is stored is verified."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.restserver.client import Client
from tests.servers.gateway import Gateway

from backupgw.kvstore.backends.base import Reader
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.restserver.operator_jobs import OperatorJobs, is_needed
from backupgw.restserver.place import opened
from backupgw.runtime.cli import main
from backupgw.runtime.events import Event, Events
from backupgw.runtime.jobs import Job, State
from backupgw.runtime.settings import Settings, SettingsError, load

TRASH = '{ layer = "trash", keep = "1 s" }'


class Told(Events):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__([])
        self.told: list[Event] = []

    def publish(self, event: Event) -> bool:
        self.told.append(event)
        return True


def settings_of(folder: Path, more: str = "", layers: str = TRASH) -> Settings:
    (folder / "data").mkdir(exist_ok=True)
    config = folder / "backupgw.toml"
    config.write_text(
        f'[places.my-place]\nurl = "file://{folder}/data"\nlayers = [{layers}]\n'
        f'[state]\nfolder = "{folder}/state"\n[rest]\nplace = "my-place"\n{more}'
    )
    return load(config)


@contextmanager
def running(settings: Settings, events: Events) -> Iterator[OperatorJobs]:
    with opened(settings) as place:
        jobs = OperatorJobs(settings, place, events)
        try:
            yield jobs
        finally:
            jobs.close()


def run(jobs: OperatorJobs, what: str) -> Job:
    job = jobs.jobs.submit(jobs.kind(what))
    return asyncio.run(jobs.jobs.wait(job.id))


def add(folder: Path, content: bytes) -> Path:
    name = hashlib.sha256(content).hexdigest()
    path = folder / "data/ann/data" / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_what_was_kept_long_enough_goes(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    old, young = add(tmp_path, b"old"), add(tmp_path, b"young")
    with opened(settings) as place:
        place.delete(old.relative_to(tmp_path / "data").as_posix())
    (bucket,) = (each for each in (tmp_path / "data/.backupgw-trash").iterdir() if each.is_dir())
    with opened(settings) as place, running(settings, Told()) as jobs:
        while run(jobs, "trash").result["objects"]:
            time.sleep(0.1)  # until a second has passed
        assert not bucket.exists()
        place.delete(young.relative_to(tmp_path / "data").as_posix())
        assert run(jobs, "trash").result["objects"] == 1, "it was let go too early"


def test_a_scheduled_verification_tells_what_it_finds(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, '[rest.verify]\nschedule = "0 3 * * 0"\n', layers="")
    sound, damaged = add(tmp_path, b"sound"), add(tmp_path, b"damaged")
    damaged.write_bytes(b"damage")
    told = Told()
    with running(settings, told) as jobs:
        job = run(jobs, "verify")
        assert (job.state, job.result["files"], job.result["damaged"]) == (State.SUCCEEDED, 2, 1)
        assert [event.type for event in told.told] == ["damage.found", "job.finished"]
        assert not damaged.exists()
        assert sound.exists()
        assert run(jobs, "verify").result["damaged"] == 0


def test_a_gateway_that_stops_hands_its_verification_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one goes on where the first was, and tells once what both have found."""
    settings = settings_of(tmp_path, '[rest.verify]\nschedule = "0 3 * * 0"\nthreads = 1\n')
    paths = sorted(add(tmp_path, bytes([number])) for number in range(100))
    for path in (paths[0], paths[99]):
        path.write_bytes(b"damage")
    read: list[str] = []
    half = threading.Event()
    go_on = threading.Event()
    open_reader: Callable[..., Reader] = PosixFS.open_reader

    def counting(self: PosixFS, name: str, **more: int | None) -> Reader:
        if "/data/" in name:
            read.append(name)
            if len(read) == 50:
                half.set()
                assert go_on.wait(30)
        return open_reader(self, name, **more)

    monkeypatch.setattr(PosixFS, "open_reader", counting)
    told = Told()
    with opened(settings) as place:
        first = OperatorJobs(settings, place, told)
        job = first.jobs.submit(first.kind("verify"))
        assert half.wait(30)
        threading.Timer(0.2, go_on.set).start()
        first.close()
        before = len(read)
        assert before < 100
        second = OperatorJobs(settings, place, told)
        done = asyncio.run(second.jobs.wait(job.id))
        second.close()
    assert (done.state, done.result["files"], done.result["damaged"]) == (State.SUCCEEDED, 100, 2)
    assert len(read) < 100 + 2 + 20, "what the first had read was read again"
    found = [event for event in told.told if event.type == "damage.found"]
    assert len(found) == 2


def test_nothing_is_started_where_nothing_is_to_be_done(tmp_path: Path) -> None:
    assert not is_needed(settings_of(tmp_path, layers=""))
    assert is_needed(settings_of(tmp_path))
    assert not is_needed(settings_of(tmp_path, '[rest.trash]\nexpire = ""\n'))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[rest.verify]\nschedule = "at night"\n', "no cron expression"),
        ('[rest.verify]\nschedule = "0 3 31 2 *"\n', "cron expression|never comes"),
        ('[rest.verify]\nschedule = "0 3 * * 0"\nzone = "Mars"\n', "no time zone"),
        ('[rest.verify]\nlimit = "fast"\n', "number of bytes"),
        ('[rest.trash]\nexpire = "daily"\n', "no cron expression"),
    ],
)
def test_mistakes_in_the_settings_are_told(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings_of(tmp_path, more)


def test_the_metrics_show_trash_and_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also what the operator's own commands find, and the same at each of several workers."""
    data = tmp_path / "data"
    config = tmp_path / "backupgw.toml"
    config.write_text(
        '[places.path]\nlayers = [{ layer = "trash", keep = "1 day" }]\n'
        f'[state]\nfolder = "{tmp_path}/state"\n'
    )
    where = ("--path", str(data), "--config", str(config))
    flags = ["--config", str(config), "--prometheus", "--prometheus-no-auth", "--workers", "2"]
    with Gateway(data, flags=flags) as server:
        client = Client(server)
        damaged, path = client.save("ann", content=os.urandom(500))
        assert (damaged, client.save("ann")[0]) == (200, 200)
        (stored,) = data.glob(f"ann/data/*/{path[-64:]}")
        stored.write_bytes(b"damage")
        assert client.status("DELETE", client.save("ann", content=bytes(700))[1]) == 200
        assert "backupgw_rest_trash_bytes" not in shown(client)
        assert main(["rest", "verify", *where]) == 1
        assert main(["rest", "trash", "empty", *where]) == 0
        for _ in range(6):  # any worker may answer
            found = shown(client)
            assert found["backupgw_rest_verify_damaged"] == 1
            assert found["backupgw_rest_verify_files"] == 2
            assert found["backupgw_rest_trash_objects"] == 1
            assert found["backupgw_rest_trash_bytes"] == 700
            assert found["backupgw_rest_verify_finished_timestamp_seconds"] > time.time() - 600
        assert main(["rest", "verify", *where]) == 0
        assert shown(client)["backupgw_rest_verify_damaged"] == 0
    assert "Traceback" not in capsys.readouterr().err


def shown(client: Client) -> dict[str, float]:
    lines = client.call("GET", "/metrics").text.splitlines()
    found = {}
    for line in lines:
        if line.startswith("backupgw_rest_"):
            name, _, value = line.rpartition(" ")
            found[name.partition("{")[0]] = float(value)
            assert json.dumps("path") in name
    return found
