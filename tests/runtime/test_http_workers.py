"""Processes: graceful stops, reloads, workers that die, metrics and logs of several workers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.http_process import PATIENCE, HostProcess, Wire, wait_for_line

TWO: dict[str, Any] = {"listen": "127.0.0.1:0", "workers": 2}


def eventually(condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def pids(host: HostProcess, count: int) -> set[int]:
    """Which processes answer on `count` new connections."""
    found = set()
    for _ in range(count):
        with host.connect() as wire:
            found.add(wire.request("GET", "/echo").json()["pid"])
    return found


def refused(host: HostProcess) -> bool:
    try:
        host.connect().sock.close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until_taken(wire: Wire) -> None:
    """Wait until a worker is in the middle of the upload that `wire` has begun."""
    wire.send(
        b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
    )
    assert wire.answer().status == 100


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_a_running_upload_finish(workers: int, number: int) -> None:
    with HostProcess({**TWO, "workers": workers}) as host, contextlib.ExitStack() as stack:
        uploads = [stack.enter_context(host.connect()) for _ in range(3)]
        idle = stack.enter_context(host.connect())
        assert idle.request("GET", "/echo").status == 200
        for upload in uploads:
            wait_until_taken(upload)
        host.signal(number)
        assert idle.rest() == b""  # the stop has begun
        eventually(lambda: refused(host), "new clients wait in vain")
        for upload in uploads:
            upload.send(b"1234567890")
            answer = upload.answer()
            assert answer.json()["size"] == 10
            assert answer.headers["connection"] == "close"
        assert host.wait() == 0
        assert host.lines.count("application stopped") == workers


def test_a_request_that_does_not_end_is_given_up_after_the_graceful_time() -> None:
    with (
        HostProcess({**TWO, "workers": 1, "graceful_timeout": 1}, {"hold": 3600}) as host,
        host.connect() as begun,
        host.connect() as waiting,
    ):
        begun.send(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
        begun.read_until(b"begun")
        waiting.send(b"GET /hold HTTP/1.1\r\nHost: t\r\n\r\n")
        host.signal(signal.SIGTERM)
        assert waiting.answer().status == 503
        assert not begun.rest().endswith(b"0\r\n\r\n")  # nobody may take it for a whole answer
        assert host.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_interrupt_ends_at_once(workers: int) -> None:
    options = {**TWO, "workers": workers, "graceful_timeout": 3600}
    with HostProcess(options) as host, host.connect() as idle, host.connect() as upload:
        assert idle.request("GET", "/echo").status == 200
        wait_until_taken(upload)
        host.signal(signal.SIGINT)
        assert idle.rest() == b""
        host.signal(signal.SIGINT)
        assert host.wait() == 0
        assert not [line for line in host.lines if "Traceback" in line or "lifespan" in line]


def test_a_worker_that_is_killed_is_replaced_and_nobody_is_turned_away() -> None:
    with HostProcess(TWO) as host:
        before = host.children()
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        for _ in range(50):
            assert pids(host, 1) <= {before[1], *host.children()}
        host.wait_for(f"worker {before[0]} of demo ended (killed by SIGKILL)")
        eventually(lambda: len(host.children()) == 2, "no second worker")
        assert before[1] in host.children()
        assert host.stop() == 0


def test_a_worker_that_takes_anothers_place_has_nothing_of_the_others() -> None:
    """It is forked off a supervisor that has listeners, and a line to each worker."""
    with HostProcess(TWO) as host:
        first, second = host.children()
        before = sockets(first)
        assert sockets(second) == before
        os.kill(first, signal.SIGKILL)
        host.wait_for("killed by SIGKILL")
        eventually(lambda: len(host.children()) == 2, "no second worker")
        (third,) = set(host.children()) - {second}
        eventually(lambda: third in pids(host, 4), "it does not answer")
        eventually(lambda: sockets(third) == before, f"{sockets(third)} sockets for {before}")


def sockets(pid: int) -> int:
    folder = f"/proc/{pid}/fd"
    return sum(os.readlink(f"{folder}/{fd}").startswith("socket:") for fd in os.listdir(folder))


def test_workers_have_random_numbers_of_their_own() -> None:
    with HostProcess(TWO) as host, host.connect() as one, host.connect() as two:
        answers = [wire.request("GET", "/echo").json() for wire in (one, two)]
        assert len({answer["pid"] for answer in answers}) == 2
        assert len({answer["random"] for answer in answers}) == 2


def test_a_supervisor_that_has_threads_spawns_its_workers() -> None:
    """A fork would leave them out, with what they have locked."""
    with HostProcess({**TWO, "metrics": True, "metrics_open": True}, {"thread": True}) as host:
        workers = host.children()
        assert len(workers) == 2
        for pid in workers:
            assert b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert pids(host, 2) <= set(workers)
        with host.connect() as wire:
            assert b"backupgw_http_connections" in wire.request("GET", "/metrics").body
        host.process.kill()
        host.wait()
        eventually(lambda: not any(map(alive, workers)), "workers are left")


@pytest.mark.parametrize("workers", [2, 3])
def test_connections_that_come_at_once_go_to_all_workers_alike(workers: int) -> None:
    """restic opens five; a worker that had most of them would be all that a machine uses."""
    with HostProcess({**TWO, "workers": workers}) as host, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(host.connect()) for _ in range(2 * workers)]
        answers = [wire.request("GET", "/echo").json()["pid"] for wire in wires]
        assert {answers.count(pid) for pid in host.children()} == {2}
        # The one that its clients leave gets the next.
        for wire, pid in zip(wires, answers, strict=True):
            if pid == answers[0]:
                wire.sock.close()
        eventually(lambda: pids(host, 1) == {answers[0]}, "another one has fewer")


def test_connections_that_a_dead_worker_had_not_taken_go_to_others() -> None:
    with HostProcess(TWO) as host, contextlib.ExitStack() as stack:
        first, second = host.children()
        os.kill(first, signal.SIGSTOP)
        wires = [stack.enter_context(host.connect()) for _ in range(6)]
        for wire in wires:
            wire.send(b"GET /echo HTTP/1.1\r\nHost: t\r\n\r\n")
        time.sleep(0.2)
        os.kill(first, signal.SIGKILL)
        answers = [wire.answer().json()["pid"] for wire in wires]
        assert answers.count(second) >= 3
        assert first not in answers


def test_workers_do_not_outlive_a_killed_supervisor() -> None:
    with HostProcess(TWO) as host:
        workers = host.children()
        host.process.kill()
        host.wait()
        eventually(lambda: not any(map(alive, workers)), "workers are left")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_reloads_in_every_process_and_drops_no_connection(workers: int) -> None:
    with HostProcess({**TWO, "workers": workers}) as host, host.connect() as upload:
        wait_until_taken(upload)
        before = host.children()
        host.signal(signal.SIGHUP)
        reloaded: dict[int, int] = {}

        def everywhere() -> bool:
            with contextlib.ExitStack() as held:
                # Held together: each goes to the worker that has the fewest.
                for _ in range(2 * workers):
                    answer = held.enter_context(host.connect()).request("GET", "/echo").json()
                    reloaded[answer["pid"]] = answer["reloads"]
            return list(reloaded.values()) == [1] * workers

        eventually(everywhere, f"not reloaded everywhere: {reloaded}")
        upload.send(b"1234567890")
        assert upload.answer().json()["size"] == 10
        assert host.children() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_an_application_that_cannot_start_ends_the_host(workers: int) -> None:
    host = HostProcess({**TWO, "workers": workers}, {"fail_startup": True})
    assert host.wait() == 1
    host.stop()
    assert any("the place is not there" in line for line in host.lines)
    assert not any("start server on" in line for line in host.lines)


def test_an_access_log_that_cannot_be_written_ends_the_host_with_one_line() -> None:
    host = HostProcess({**TWO, "access_log": "/nonexistent/access.log"})
    assert host.wait() == 1
    host.stop()
    assert host.lines == [
        "backupgw: cannot write the access log /nonexistent/access.log: No such file or directory"
    ]


def test_several_services_run_side_by_side() -> None:
    with HostProcess([{"listen": "127.0.0.1:0"}, {"listen": "[::1]:0"}]) as host:
        host.wait_for("start server on [::1]")
        assert len(host.children()) == 2
        assert host.stop() == 0


# Logs and metrics of several workers


def test_no_line_of_the_access_log_is_torn_or_lost(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with HostProcess({**TWO, "access_log": str(log)}) as host:

        def load(name: int) -> None:
            for part in range(10):
                with host.connect() as wire:
                    for index in range(50):
                        number = part * 50 + index
                        assert wire.request("GET", f"/{name}-{number}/echo").status == 200

        threads = [threading.Thread(target=load, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert host.stop() == 0
    lines = log.read_text().splitlines()
    pattern = re.compile(r'127\.0\.0\.1 - - \[[^]]+\] "GET (/\S+) HTTP/1\.1" 200 \d+ "-" "-"')
    matches = [pattern.fullmatch(line) for line in lines]
    assert all(matches)
    paths = {match[1] for match in matches if match}
    assert paths == {f"/{name}-{index}/echo" for name in range(4) for index in range(500)}
    assert len(lines) == 2000
    assert log.stat().st_mode & 0o777 == 0o600


def test_logrotate_gets_a_new_file_on_sighup(tmp_path: Path) -> None:
    log, old = tmp_path / "access.log", tmp_path / "access.log.1"
    with HostProcess({**TWO, "access_log": str(log)}) as host:
        with host.connect() as wire:
            assert wire.request("GET", "/before").status == 200
        log.rename(old)
        host.signal(signal.SIGHUP)
        eventually(log.exists, "no new file")
        eventually(lambda: "/before" in old.read_text(), "a line was lost")
        with host.connect() as wire:
            assert wire.request("GET", "/after").status == 200
        wait_for_line(log, "/after")


def test_metrics_are_the_sum_over_all_workers_and_stay_so_when_one_dies() -> None:
    with HostProcess({**TWO, "metrics": True, "metrics_open": True}) as host:

        def total() -> float:
            with host.connect() as wire:
                text = wire.request("GET", "/metrics").body.decode()
            pattern = r'requests_total\{method="PUT",service="demo",status="200"\} (\S+)'
            match = re.search(pattern, text)
            return float(match[1]) if match else 0.0

        seen: set[int] = set()
        sent = 0
        while len(seen) < 2 or sent < 40:
            with host.connect() as one, host.connect() as two:
                for wire in (one, two):
                    seen.add(wire.request("PUT", "/echo").json()["pid"])
                    sent += 1
        eventually(lambda: total() == sent, "requests are missing in the sum")
        os.kill(host.children()[0], signal.SIGKILL)
        host.wait_for("killed by SIGKILL")
        assert total() == sent


def test_the_folder_of_the_metrics_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with HostProcess({**TWO, "metrics": True}) as host:
        (folder,) = tmp_path.glob("backupgw-metrics-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert host.stop() == 0
    assert list(tmp_path.iterdir()) == []


# Endpoints


def test_health_and_readiness(tmp_path: Path) -> None:
    mark = tmp_path / "not-ready"
    with (
        HostProcess({"listen": "127.0.0.1:0"}, {"not_ready": str(mark)}) as host,
        host.connect() as wire,
    ):
        assert wire.request("GET", "/healthz").status == 200
        assert wire.request("HEAD", "/healthz").status == 200
        assert wire.request("GET", "/readyz").status == 200
        mark.touch()
        assert wire.request("GET", "/readyz").status == 503
        assert wire.request("GET", "/healthz").status == 200
        # Only the exact path and only reading: the rest belongs to the service.
        assert wire.request("POST", "/healthz").json()["path"] == "/healthz"
        assert wire.request("GET", "/healthz/").json()["path"] == "/healthz/"
        assert wire.request("GET", "/metrics").json()["path"] == "/metrics"


def test_metrics_ask_the_service_for_leave() -> None:
    with HostProcess({"listen": "127.0.0.1:0", "metrics": True}) as host, host.connect() as wire:
        refused = wire.request("GET", "/metrics")
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        given = wire.request("GET", "/metrics", "Authorization: Bearer good\r\n")
        assert given.status == 200
        assert "backupgw_http_connections" in given.body.decode()
        assert "process_resident_memory_bytes" in given.body.decode()
