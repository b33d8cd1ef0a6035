"""Records reach Loki, in few streams; away, it costs no caller a moment, and losses are counted."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from backupgw.runtime import log, loki
from backupgw.runtime.loki import Loki, LokiHandler
from backupgw.runtime.settings import SettingsError, load
from tests.servers.loki_double import LokiDouble
from tests.servers.vfs_gateway import VfsGateway

from .test_log import _restore as _restore


@pytest.fixture
def double() -> Iterator[LokiDouble]:
    with LokiDouble() as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loki, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(loki, "LONGEST_WAIT", 0.05)
    yield
    log.configure("info", "json")  # whoever pushes is closed
    structlog.reset_defaults()


class Pushed:
    """A logger of its own whose records go to a double; counts what becomes of them."""

    def __init__(self, double: LokiDouble, *, queue: int = 1 << 20, metadata: bool = True) -> None:
        self.counts: Counter[str] = Counter()
        self.handler = LokiHandler(
            Loki(
                double.url,
                {},
                {"service_name": "test"},
                metadata,
                queue=queue,
                interval=0.01,
                timeout=5,
            ),
            lambda result, number: self.counts.update({result: number}),
        )
        self.handler.setFormatter(logging.Formatter('{"event": "%(message)s", "level": "info"}'))

    def log(self, text: str) -> None:
        self.handler.handle(logging.makeLogRecord({"msg": text, "created": time.time()}))


@pytest.fixture
def pushed(double: LokiDouble) -> Iterator[Pushed]:
    found = Pushed(double)
    yield found
    found.handler.close()


def test_a_record_is_a_line_in_one_of_few_streams(double: LokiDouble) -> None:
    log.configure("info", "json", loki=Loki(double.url, {}, {"service_name": "backupgw"}))
    before = time.time_ns()
    with log.request_context(request_id="r1"):
        log.get_logger("ours").info(
            "stored", vfolder_id="f" * 32, backend="vfs", operation="upload", size=3, password="x"
        )
    logging.getLogger("theirs").warning(
        "gone to https://user:geheim@example.org/", extra={"vfolder_id": "e" * 32}
    )
    log.get_logger("ours").debug("not at this level")
    ours, theirs = double.wait(2)
    assert ours.labels == {
        "service_name": "backupgw",
        "level": "info",
        "backend": "vfs",
        "operation": "upload",
    }
    assert ours.metadata == {"vfolder_id": "f" * 32, "request_id": "r1", "logger": "ours"}
    assert ours.fields["size"] == 3
    assert ours.fields["password"] == "***"
    assert before - 1e9 < ours.nanoseconds < time.time_ns()
    assert theirs.labels == {"service_name": "backupgw", "level": "warning"}
    assert theirs.metadata["vfolder_id"] == "e" * 32
    assert "geheim" not in theirs.text


def test_a_name_that_is_not_utf8_arrives(pushed: Pushed, double: LokiDouble) -> None:
    pushed.log("a name: \udcff")
    (line,) = double.wait(1)
    assert line.fields["event"].startswith("a name")


def test_an_old_loki_gets_no_metadata(double: LokiDouble) -> None:
    pushed = Pushed(double, metadata=False)
    pushed.handler.setFormatter(logging.Formatter('{"vfolder_id": "%(message)s"}'))
    pushed.log("1" * 32)
    (line,) = double.wait(1)
    assert (line.metadata, line.fields["vfolder_id"]) == ({}, "1" * 32)
    pushed.handler.close()


def test_many_records_are_few_requests(double: LokiDouble, pushed: Pushed) -> None:
    double.going_on.clear()
    for number in range(5000):
        pushed.log(f"record {number}")
    double.going_on.set()
    lines = double.wait(5000)
    assert [line.fields["event"] for line in lines] == [f"record {n}" for n in range(5000)]
    assert double.batches <= 20


def test_while_it_is_away_nobody_waits_and_nothing_that_fits_is_lost(
    double: LokiDouble, pushed: Pushed
) -> None:
    double.refuse()
    longest = 0.0
    for number in range(200):
        began = time.perf_counter()
        pushed.log(f"record {number}")
        longest = max(longest, time.perf_counter() - began)
    assert longest < 1, "a caller has waited"
    double.accept()
    assert len(double.wait(200)) == 200
    pushed.handler.close()
    assert pushed.counts == {"sent": 200}


def test_what_does_not_fit_is_lost_and_counted(double: LokiDouble) -> None:
    double.going_on.clear()
    pushed = Pushed(double, queue=10_000)
    for number in range(1000):
        pushed.log(f"{number:0100}")
    double.going_on.set()
    # What was on its way when the queue was full is beside it.
    pushed.log("and then")
    pushed.handler.close()
    assert pushed.counts["sent"] + pushed.counts["overflow"] + pushed.counts["unsent"] == 1001
    assert 60 <= pushed.counts["sent"] <= 250
    assert len(double.lines) == pushed.counts["sent"]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_fails_for_a_moment_is_sent_again(
    double: LokiDouble, pushed: Pushed, status: int
) -> None:
    double.statuses = [status, status, status]
    double.retry_after = "0.2"
    began = time.monotonic()
    pushed.log("one")
    double.wait(1)
    if status == 429:
        assert time.monotonic() - began > 0.5, "it is to be left alone for as long as it says"
    pushed.handler.close()
    assert len(double.lines) == 1
    assert pushed.counts == {"sent": 1}


def test_what_it_never_takes_holds_up_nothing(double: LokiDouble, pushed: Pushed) -> None:
    double.statuses = [400]
    pushed.log("bad")
    deadline = time.monotonic() + 10
    while not pushed.counts["refused"] and time.monotonic() < deadline:
        time.sleep(0.01)
    pushed.log("good")
    (line,) = double.wait(1)
    assert line.fields["event"] == "good"
    assert pushed.counts["refused"] == 1


def test_a_line_that_is_too_long_is_cut(double: LokiDouble) -> None:
    log.configure("info", "json", loki=Loki(double.url, {}, {"a": "b"}))
    log.get_logger("ours").info("x" * 1_000_000, vfolder_id="f" * 32)
    log.get_logger("ours").info("many", **{f"field{n}": "y" * 60_000 for n in range(10)})
    cut, many = double.wait(2)
    assert cut.fields["event"].endswith(" …")
    assert cut.metadata["vfolder_id"] == "f" * 32
    assert many.fields["event"] == "a record that was too long to be sent"


def test_an_end_sends_what_is_left_and_waits_for_nobody_long(double: LokiDouble) -> None:
    pushed = Pushed(double)
    for number in range(50):
        pushed.log(str(number))
    pushed.handler.close()
    assert len(double.lines) == 50
    pushed.log("too late")
    dead = Pushed(double)
    double.going_on.clear()
    dead.log("one")
    began = time.monotonic()
    dead.handler.close()
    assert time.monotonic() - began < loki.FAREWELL + 2


def test_a_gateway_sends_with_what_it_is_told(double: LokiDouble, tmp_path: Path) -> None:
    more = (
        f'[log.loki]\nurl = "{double.url}"\nuser = "gateway"\npassword = "geheim"\n'
        'tenant = "backups"\nlabels = { cluster = "one" }\n'
    )
    with VfsGateway(tmp_path / "gateway", more=more) as gateway, gateway.client("alice") as alice:
        made = alice.post("/v1/folders", json={"name": "docs"}).json()
        while not any("folder created" in line.text for line in double.lines):
            double.wait(len(double.lines) + 1)
        output = gateway.process
    (line,) = [line for line in double.lines if "folder created" in line.text]
    assert line.labels == {
        "cluster": "one",
        "level": "info",
        "backend": "vfs",
        "operation": "create",
    }
    assert line.metadata["vfolder_id"] == made["id"]
    assert double.headers["authorization"] == loki.basic("gateway", "geheim")
    assert double.headers["x-scope-orgid"] == "backups"
    assert "geheim" not in output.output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('url = "loki.example:3100"', "log.loki.url: is no address of a Loki"),
        ('url = "http://me:geheim@loki.example"', "log.loki.url: has a user or a password"),
        ('url = "http://loki.example"\nuser = "me"', "it needs both or neither"),
        ('url = "http://loki.example"\nlabels = { "a-b" = "c" }', "is no label's name"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, told: str) -> None:
    config = tmp_path / "gw.toml"
    config.write_text(f"[log.loki]\n{text}\n")
    with pytest.raises(SettingsError) as caught:
        load(config, {}, {}, serving=())
    assert told in str(caught.value)
    assert "geheim" not in str(caught.value)
