"""Logs: one pipeline, readable by people and machines, and no secret in either."""

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from backupgw.runtime import log
from backupgw.runtime.secrets import Secret
from tests.servers.child import Child


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_structlog_and_the_standard_library_come_out_alike() -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream)
    with log.request_context(request_id="r1"):
        log.get_logger("ours").info("stored", size=3)
        logging.getLogger("theirs").info("stored %d", 3, extra={"place": "nas"})
    log.get_logger("ours").info("after")
    ours, theirs, after = lines(stream)
    assert ours["event"] == "stored"
    assert (ours["size"], ours["request_id"], ours["level"]) == (3, "r1", "info")
    assert theirs["event"] == "stored 3"
    assert (theirs["logger"], theirs["request_id"], theirs["place"]) == ("theirs", "r1", "nas")
    assert ours["timestamp"].endswith("Z")
    assert "request_id" not in after


def test_uvicorns_own_records_pass_through() -> None:
    stream = io.StringIO()
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.addHandler(logging.NullHandler())
    uvicorn.propagate = False
    log.configure("info", "json", stream)
    uvicorn.error("cannot bind")
    assert [line["event"] for line in lines(stream)] == ["cannot bind"]


def test_auto_is_json_where_no_person_looks() -> None:
    stream = io.StringIO()
    log.configure("info", "auto", stream)
    logging.getLogger("x").warning("a")
    assert lines(stream)[0]["level"] == "warning"


def test_auto_is_for_people_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    log.configure("info", "auto", stream)
    logging.getLogger("x").warning("hello", extra={"size": 3})
    text = stream.getvalue()
    assert "hello" in text
    assert not text.startswith("{")


@pytest.mark.parametrize("format_", ["human", "json"])
def test_secrets_and_private_parts_of_urls_stay_out(format_: log.Format) -> None:
    stream = io.StringIO()
    log.configure("debug", format_, stream)
    secret = Secret("hunter2")
    ours = log.get_logger("x")
    ours.info(
        "to s3:KEY:hunter2@http://h/b", password="hunter2", url="http://u:hunter2@h/?t=hunter2"
    )
    ours.info("x", a={"token": "hunter2", "b": ["http://u:hunter2@h", secret]}, c=secret)
    logging.getLogger("y").info("got %s from %s", secret, "https://h/p?token=hunter2")
    logging.getLogger("y").info("extra", extra={"api_key": "hunter2"})
    hunter = "hunter2"
    try:
        raise OSError(f"cannot reach https://u:{hunter}@host/?sig={hunter}")
    except OSError:
        ours.exception("failed")
        logging.getLogger("y").exception("failed")
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("Traceback") == 2, "exceptions are kept"
    assert stream.getvalue().count("OSError: cannot reach https://***@host/?***") == 2


@pytest.mark.parametrize("format_", ["human", "json"])
def test_nobody_can_forge_a_line(format_: log.Format) -> None:
    stream = io.StringIO()
    log.configure("info", format_, stream)
    logging.getLogger("x").warning("user %s\x1b[2K", "eve\n2026-01-01 [info] all is well\r")
    log.get_logger("x").warning("y", user="eve\n2026-01-01 [info] all is well\x9b")
    text = stream.getvalue()
    assert len(text.splitlines()) == 2
    assert not set(text) & {"\r", "\x1b", "\x9b"} or format_ == "json"
    assert "all is well" in text


def test_levels_hold_for_both_kinds_and_the_last_configure_counts() -> None:
    first, second = io.StringIO(), io.StringIO()
    ours, theirs = log.get_logger("x"), logging.getLogger("x")
    log.configure("debug", "json", first)
    ours.debug("1")
    theirs.debug("2")
    log.configure("warning", "json", second)
    ours.info("3")
    theirs.info("4")
    ours.warning("5")
    theirs.warning("6")
    assert [line["event"] for line in lines(first)] == ["1", "2"]
    assert [line["event"] for line in lines(second)] == ["5", "6"]


def test_what_is_logged_below_the_level_is_not_even_written_out() -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("was written out")

        __repr__ = __str__

    log.configure("info", "json", io.StringIO())
    log.get_logger("x").debug("no %s", Costly(), value=Costly())
    logging.getLogger("x").debug("no %s", Costly())


def test_warnings_of_libraries_are_records_too() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log.configure("info", "json", stream)
        warnings.warn("old http://u:p@h", UserWarning, stacklevel=1)
    [line] = lines(stream)
    assert line["logger"] == "py.warnings"
    assert "http://***@h" in line["event"]


def test_a_reader_that_went_away_does_not_end_the_process() -> None:
    program = (
        "import logging\n"
        "from backupgw.runtime import log\n"
        "log.configure('info', 'json')\n"
        "for _ in range(20000): logging.getLogger('x').info('y' * 100)\n"
        "print('done')\n"
    )
    process = Child([sys.executable, "-c", program], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stdout is not None
    with process:
        process.stderr.read(100)
        process.stderr.close()
        assert process.stdout.read() == b"done\n"


def test_request_ids_differ() -> None:
    ids = {log.new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(name) == 16 for name in ids)
