"""Webhooks against a real HTTP server: signed, retried, never redirected, over a restart."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from backupgw.runtime import log
from backupgw.runtime.events import DamageFound, Events, EventsSettings, SnapshotWritten, start
from backupgw.runtime.events import hooks as hooks_module
from backupgw.runtime.events.hooks import Result
from backupgw.runtime.events.journal import Journal
from backupgw.runtime.events.signature import key_of, sign, verify
from backupgw.runtime.events.webhooks import judge

SNAPSHOT = SnapshotWritten(place="default", repository="alice/laptop", snapshot="ab12")
DAMAGE = DamageFound(place="default", name="data/ab/ab12", problem="another hash")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Answer = tuple[int, dict[str, str]]


class Receiver:
    """An HTTP server that notes what it is sent and answers as it is told."""

    def __init__(self) -> None:
        self.requests: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.answer: Callable[[int], Answer] = lambda number: (204, {})
        self.count = 0
        self.hold = threading.Event()
        self.hold.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                number, receiver.count = receiver.count, receiver.count + 1
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.put(({**headers, ":path": self.path}, body))
                receiver.hold.wait(60)
                status, more = receiver.answer(number)
                # Who asked may have given up.
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in {"Content-Length": "0", **more}.items():
                        self.send_header(name, value)
                    self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def next(self) -> tuple[dict[str, str], bytes]:
        return self.requests.get(timeout=30)

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.thread.join(60)
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_module, "FIRST_PAUSE", 0.02)


def settings(folder: Path, *hooks: dict[str, Any], **more: Any) -> EventsSettings:
    return EventsSettings.model_validate(
        {"journal": folder / "state" / "events.sqlite3", "hook": list(hooks), **more}
    )


def pending(folder: Path, hook: str = "chat") -> int:
    journal = Journal(str(folder / "state" / "events.sqlite3"))
    try:
        return journal.pending(hook)
    finally:
        journal.close()


def test_an_event_arrives_signed(receiver: Receiver, tmp_path: Path) -> None:
    hook = {
        "name": "chat",
        "url": f"{receiver.url}/T0KEN?key=hunter2",
        "secret": SECRET,
        "headers": {"Authorization": "Bearer hunter3"},
    }
    with start(settings(tmp_path, hook, gateway="gw1")) as events:
        events.publish(SNAPSHOT)
        headers, body = receiver.next()
    assert json.loads(body)["data"]["repository"] == "alice/laptop"
    assert headers["webhook-id"] == json.loads(body)["id"]
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer hunter3"
    assert headers[":path"] == "/T0KEN?key=hunter2"
    right = headers["webhook-id"], headers["webhook-timestamp"], headers["webhook-signature"]
    key = key_of(SECRET)
    assert verify(key, *right, body, time.time())
    assert not verify(key, *right, body + b" ", time.time()), "another body"
    assert not verify(b"other", *right, body, time.time()), "another key"
    assert not verify(key, "other", *right[1:], body, time.time()), "another id"
    assert not verify(key, *right, body, time.time() + 1000), "an old one played again"


def test_signatures_are_those_of_the_standard() -> None:
    # Worked out by openssl: printf 'msg_1.1614265330.{"a":1}' | openssl dgst -sha256 -hmac key
    assert sign(b"key", "msg_1", 1614265330, b'{"a":1}') == (
        "v1,wCds2WFQWb8mHLIjD5Jq+JjwPzWbRBrUBmP4KabKc2E="
    )


def test_failures_are_tried_again_until_it_works(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer = lambda number: (204, {}) if number >= 4 else (500 + number, {})
    with start(settings(tmp_path, {"name": "chat", "url": receiver.url})) as events:
        events.publish(SNAPSHOT)
        events.publish(DAMAGE)
        sent = [receiver.next()[0]["webhook-id"] for _ in range(6)]
    assert len(set(sent)) == 2
    assert set(sent[4:]) == set(sent), "both arrived in the end"
    assert pending(tmp_path) == 0


@pytest.mark.parametrize("status", [301, 307, 308, 400, 401, 404, 410])
def test_what_cannot_succeed_is_given_up(
    receiver: Receiver, tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = f"{receiver.url}/elsewhere"
    receiver.answer = lambda number: (status if number == 0 else 204, {"Location": elsewhere})
    with start(settings(tmp_path, {"name": "chat", "url": receiver.url})) as events:
        events.publish(SNAPSHOT)
        events.publish(DAMAGE)
        paths = [receiver.next() for _ in range(2)]
    assert [json.loads(body)["type"] for _, body in paths] == ["snapshot.written", "damage.found"]
    assert receiver.count == 2, "neither tried again nor sent elsewhere"
    assert f"answered {status}" in caplog.text
    assert pending(tmp_path) == 0


def test_what_waits_survives_a_restart(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer = lambda number: (503, {"Retry-After": "2"})
    wanted = settings(tmp_path, {"name": "chat", "url": receiver.url})
    with start(wanted) as events:
        for _ in range(5):
            events.publish(SNAPSHOT)
        receiver.next()
    assert pending(tmp_path) == 5
    assert receiver.count == 1, "Retry-After is heeded"
    receiver.answer = lambda number: (204, {})
    with start(wanted):
        arrived = {receiver.next()[0]["webhook-id"] for _ in range(5)}
    assert len(arrived) == 5
    assert pending(tmp_path) == 0


def test_stopping_does_not_wait_for_an_endpoint_that_hangs(
    receiver: Receiver, tmp_path: Path
) -> None:
    receiver.hold.clear()
    events = start(settings(tmp_path, {"name": "chat", "url": receiver.url, "time_limit": 3000}))
    events.publish(SNAPSHOT)
    receiver.next()
    events.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("hook ")]
    assert pending(tmp_path) == 1, "tried again after the start"


def test_an_endpoint_that_hangs_is_given_its_time(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.hold.clear()
    hook = {"name": "chat", "url": receiver.url, "time_limit": 0.2}
    with start(settings(tmp_path, hook)) as events:
        events.publish(SNAPSHOT)
        first, _ = receiver.next()
        second, _ = receiver.next()
        assert first["webhook-id"] == second["webhook-id"]
        receiver.hold.set()
    assert "no answer within 0.2 s" in caplog.text


def test_a_dead_endpoint_is_bounded_and_holds_up_nobody(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = {"name": "dead", "url": "http://127.0.0.1:1/"}
    alive = {"name": "chat", "url": receiver.url, "types": "damage.*"}
    with start(settings(tmp_path, dead, alive, pending=50)) as events:
        for _ in range(500):
            events.publish(SNAPSHOT)
        events.publish(DAMAGE)
        assert json.loads(receiver.next()[1])["type"] == "damage.found"
    assert pending(tmp_path, "dead") == 50
    assert caplog.text.count("hook dead: cannot connect") == 1, "not one line for each attempt"


def test_too_old_ones_are_given_up(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer = lambda number: (503, {"Retry-After": "1"})
    hook = {"name": "chat", "url": receiver.url, "keep_for": 0.5}
    with start(settings(tmp_path, hook)) as events:
        events.publish(SNAPSHOT)
        receiver.next()
        receiver.answer = lambda number: (204, {})
        # The pause asked for is over after keep_for is.
        with contextlib.suppress(queue.Empty):
            receiver.requests.get(timeout=1.5)
            pytest.fail("an event was delivered after its time")
    assert pending(tmp_path) == 0


def test_hooks_that_are_gone_leave_nothing(receiver: Receiver, tmp_path: Path) -> None:
    with start(settings(tmp_path, {"name": "dead", "url": "http://127.0.0.1:1/"})) as events:
        events.publish(SNAPSHOT)
    assert pending(tmp_path, "dead") == 1
    with start(settings(tmp_path, {"name": "chat", "url": receiver.url})):
        assert pending(tmp_path, "dead") == 0


def test_several_workers_tell_each_event_once(receiver: Receiver, tmp_path: Path) -> None:
    wanted = settings(tmp_path, {"name": "chat", "url": receiver.url})
    workers = [start(wanted) for _ in range(3)]
    for number in range(30):
        workers[number % 3].publish(SNAPSHOT)
    arrived = [receiver.next()[0]["webhook-id"] for _ in range(30)]
    for worker in workers:
        worker.close()
    assert len(set(arrived)) == 30
    assert receiver.requests.empty()


def test_no_log_tells_the_url_or_the_headers(receiver: Receiver, tmp_path: Path) -> None:
    stream = io.StringIO()
    log.configure("debug", "json", stream)
    receiver.answer = lambda number: ((500, 204, 404)[number], {})
    hook = {
        "name": "chat",
        "url": f"{receiver.url}/T0KEN?key=hunter2",
        "secret": "hunter4hunter4",
        "headers": {"X-Key": "hunter3"},
    }
    try:
        with start(settings(tmp_path, hook)) as events:
            events.publish(SNAPSHOT)
            receiver.next()
            receiver.next()
            events.publish(SNAPSHOT)
            receiver.next()
    finally:
        logging.getLogger().handlers = [
            handler
            for handler in logging.getLogger().handlers
            if getattr(handler, "stream", None) is not stream
        ]
    text = stream.getvalue()
    assert "answered 404" in text
    for hidden in ("T0KEN", "hunter", "v1,"):
        assert hidden not in text


@pytest.mark.parametrize(
    ("status", "header", "result", "after"),
    [
        (200, None, Result.DELIVERED, None),
        (429, "7", Result.FAILED, 7.0),
        (503, "99999999999999999999", Result.FAILED, 999_999_999.0),
        (503, "-1", Result.FAILED, None),
        (503, "Thu, 01 Jan 1970 00:00:00 GMT", Result.FAILED, 0.0),
        (503, "soon", Result.FAILED, None),
        (302, None, Result.REFUSED, None),
        (422, "7", Result.REFUSED, None),
    ],
)
def test_what_answers_mean(
    status: int, header: str | None, result: Result, after: float | None
) -> None:
    outcome = judge(status, header)
    assert (outcome.result, outcome.after) == (result, after)


def test_publishing_to_a_hook_works_from_the_dispatcher_only(tmp_path: Path) -> None:
    """A journal that cannot be written costs events and nothing else."""
    events: Events = start(settings(tmp_path, {"name": "dead", "url": "http://127.0.0.1:1/"}))
    [sink] = [sink for sink in events._sinks if sink.name == "hooks"]
    sink._journal.close()  # type: ignore[attr-defined]
    assert events.publish(SNAPSHOT)
    events.close()
    assert pending(tmp_path, "dead") == 0
