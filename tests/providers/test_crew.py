"""Many small files, which processes move beside each other: as its users see it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.providers.provider_places import SERVERS
from tests.providers.provider_site import PATIENCE, Site
from tests.servers.child import Child

FILES = 120
PASSPHRASE = "a passphrase of some length"


@pytest.fixture(params=["aws_s3", "sftp"])
def kind(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[str]:
    """A provider on its server, ready to be used."""
    name: str = request.param
    with SERVERS[name](_server(tmp_path)) as config:
        _enable(site, name, **config)
        yield name


def _enable(site: Site, name: str, **fields: object) -> None:
    site.run("enable", name, *[f"--set={field}={value}" for field, value in fields.items()])


def _server(folder: Path) -> Path:
    server = folder / "server"
    server.mkdir(exist_ok=True)
    return server


@pytest.fixture
def home(site: Site) -> Path:
    for number in range(FILES):
        site.file(f"{number % 4}/{number:03}", b"%d " % number * (number * 40))
    return site.folder / "home"


def _lines(process: Child[bytes]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"{"):
            yield json.loads(line)


def _crew(process: Child[bytes]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [*map(int, children.split())]


def _by_name(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _begun(
    site: Site, *words: object, then: Callable[[list[int]], object]
) -> tuple[Child[bytes], list[int], list[dict[str, Any]]]:
    """Start a verb and call `then` with its crew when the first file was told of; return all that
    was told."""
    crew: list[int] = []
    told: list[dict[str, Any]] = []
    with site.start(*words) as process:
        for line in _lines(process):
            told.append(line)
            if not crew and "name" in line:
                crew = _crew(process)
                assert len(crew) >= 2, "it has no processes: is there one processor only?"
                then(crew)
        process.communicate(timeout=PATIENCE)
    return process, crew, told


def test_all_of_it_but_what_cannot_be(kind: str, site: Site, home: Path) -> None:
    _enable(site, kind, encryption_enabled="true", encryption_key=PASSPHRASE)
    large = site.file("0/large", os.urandom(9 << 20))
    site.file("only/one", b"1")
    process, _, told = _begun(site, "sync", kind, home, "small", then=lambda _: None)
    assert process.returncode == 0, told[-1]
    content = _by_name(home)
    stored = {line["name"] for line in told if line.get("event") == "uploaded"}
    assert {f"small/{name}" for name in content} == stored
    assert told[-1]["uploaded"] == len(content)
    assert told[-1]["bytes"] == sum(map(len, content.values()))
    if kind == "aws_s3":  # each is billed, whichever process sent it
        assert sum(each["count"] for each in site.json("calls", kind)) >= FILES
    back = site.folder / "back"
    back.mkdir()
    (back / "only").write_bytes(b"no folder")
    words = ("download", kind, "small", back, "--recursive")
    before = _calls(site, kind)
    process, _, told = _begun(site, *words, then=lambda _: None)
    assert process.returncode == 3, told[-1]
    if kind == "aws_s3":  # what its parent knows a process does not ask for
        asked = _calls(site, kind) - before
        assert asked["GetObject"] <= len(content) + 4
        assert asked["PutObject"] <= 2, "each finds out what the service can"
        assert asked["HeadObject"] <= 1, "each looks whether the key is the right one"
    (failed,) = (line for line in told if line.get("event") == "failed")
    assert failed["name"] == "small/only/one"
    assert f"{back}/only" in failed["error"]
    (back / "only").unlink()
    site.run(*words)
    assert _by_name(back) == content
    assert (back / "0" / "large").read_bytes() == large.read_bytes()


def _calls(site: Site, name: str) -> Counter[str]:
    return Counter({each["call"]: each["count"] for each in site.json("calls", name)})


def _nothing_is_left_of(crew: list[int]) -> None:
    ends = time.monotonic() + PATIENCE
    while any(_lives(pid) for pid in crew):
        assert time.monotonic() < ends, "a process goes on"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("kind", ["sftp"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_as_one(
    kind: str, number: signal.Signals, site: Site, home: Path, tmp_path: Path
) -> None:
    found: list[int] = []

    def end(crew: list[int]) -> None:
        found.extend(crew)
        parent = int(Path(f"/proc/{crew[0]}/stat").read_text().rpartition(")")[2].split()[1])
        for pid in [parent] if number == signal.SIGKILL else [parent, *crew]:  # as a terminal does
            os.kill(pid, number)

    process, crew, told = _begun(site, "sync", kind, home, "small", then=end)
    status = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == status[number]
    _nothing_is_left_of(crew)
    there = _by_name(_server(tmp_path) / "there")
    # What was told is there; nothing else is there in part, and the same command carries on.
    for line in told:
        if line.get("event") == "uploaded":
            assert line["name"] in there
    assert not [name for name in there if "backupgw" in name]
    done = site.lines("sync", kind, home, "small")[-1]
    assert done["failed"] == 0
    assert done["uploaded"] + done["there_already"] == FILES
    assert {f"small/{name}": content for name, content in _by_name(home).items()} == _by_name(
        _server(tmp_path) / "there"
    )


@pytest.mark.parametrize("kind", ["sftp"], indirect=True)
def test_what_a_process_had_when_it_died_is_done_by_another(
    kind: str, site: Site, home: Path, tmp_path: Path
) -> None:
    process, _, told = _begun(
        site, "sync", kind, home, "small", then=lambda crew: os.kill(crew[0], signal.SIGKILL)
    )
    assert process.returncode == 0, told[-1]
    assert told[-1]["uploaded"] == FILES
    there = _by_name(_server(tmp_path) / "there")
    for name, content in _by_name(home).items():
        assert there[f"small/{name}"] == content


@pytest.mark.parametrize("kind", ["sftp"], indirect=True)
def test_it_ends_when_its_reader_goes_away(kind: str, site: Site, home: Path) -> None:
    words = site.command("sync", kind, home, "small", "--json")
    with Child(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        next(line for line in process.stdout if b"uploaded" in line)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.parametrize("kind", ["sftp"], indirect=True)
def test_it_says_that_all_have_died(kind: str, site: Site, home: Path) -> None:
    def kill(crew: list[int]) -> None:
        for pid in crew:
            os.kill(pid, signal.SIGKILL)

    process, crew, told = _begun(site, "sync", kind, home, "small", then=kill)
    assert process.returncode == 1, told[-1]
    _nothing_is_left_of(crew)
