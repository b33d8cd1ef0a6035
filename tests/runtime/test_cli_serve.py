"""`backupgw serve`: says how to use it, serves, and stops; or says why it does not start."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.child import Child

SERVE = (sys.executable, "-m", "backupgw.runtime.cli", "serve")


@contextmanager
def serving(folder: Path, command: Sequence[str] = SERVE, **environ: str) -> Iterator[Child[str]]:
    """Run `backupgw serve` in `folder`; it is stopped at the end."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BACKUPGW_")}
    process = Child(
        command,
        cwd=folder,
        env=clean | {"BACKUPGW_REST__LISTEN": "127.0.0.1:0"} | environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def start_lines(process: Child[str]) -> tuple[str, str]:
    """Return what was printed up to the start line, and the server's address."""
    assert process.stderr is not None
    text = ""
    for line in process.stderr:
        text += line
        if found := re.match(r"start server on (\S+)", line):
            return text, found[1]
    raise AssertionError(f"it did not start: {text}")


def test_with_no_settings_it_serves_and_tells_what_to_type(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        text, address = start_lines(process)
        assert "restic init" in text
        assert f"{tmp_path}/data" in text
        try:
            status = urllib.request.urlopen(f"http://{address}/none/config").status
        except urllib.error.HTTPError as error:
            status = error.code
        assert status == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_workers_log_as_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")
    environ = {
        "BACKUPGW_REST__HTPASSWD_FILE": str(tmp_path / "users"),
        "BACKUPGW_REST__WORKERS": "2",
        "BACKUPGW_LOG__FORMAT": "json",
    }
    with serving(tmp_path, **environ) as process:
        _, address = start_lines(process)
        request = urllib.request.Request(f"http://{address}/r/config")
        request.add_header("Authorization", "Basic YW5uOndyb25n")
        try:
            status = urllib.request.urlopen(request).status
        except urllib.error.HTTPError as error:
            status = error.code
        assert status == 401
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        records = [json.loads(line) for line in process.stderr if line.startswith("{")]
        assert "login failed: user 'ann' from 127.0.0.1" in [r["event"] for r in records]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_that_comes_early_waits_until_it_can_be_done(tmp_path: Path, workers: int) -> None:
    (tmp_path / "backupgw.toml").write_text(
        f"rest.workers = {workers}\nlog.format = 'json'\n"
        "[[events.hook]]\nname = 'a'\nurl = 'http://127.0.0.1:1/'\n"
        "headers.a = { command = ['sh', '-c', 'mkdir told && kill -HUP $PPID; echo a'] }\n"
    )
    (tmp_path / "backupgw.toml").chmod(0o600)
    with serving(tmp_path) as process:
        text, _ = start_lines(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "SIGHUP: reloading" in text + process.stderr.read()


def test_a_reload_does_not_hide_why_nothing_is_served(tmp_path: Path) -> None:
    command = "kill -HUP $PPID; exit 1"
    (tmp_path / "backupgw.toml").write_text(
        "[[events.hook]]\nname = 'a'\nurl = 'http://127.0.0.1:1/'\n"
        f"headers.a = {{ command = ['sh', '-c', '{command}'] }}\n"
    )
    with serving(tmp_path) as process:
        assert process.stderr is not None
        assert "the secret's command sh" in process.stderr.read()
        assert process.wait(30) == 1


def test_a_reload_before_anything_is_read_waits_until_it_can_be_done(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from backupgw.runtime import cli, command_line\n"
        "run = command_line.run\n"
        "def early(words):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return run(words)\n"
        "command_line.run = early\n"
        "sys.exit(cli.main(['serve']))\n"
    )
    command = [sys.executable, "-c", program]
    with serving(tmp_path, command, BACKUPGW_LOG__FORMAT="json") as process:
        text, _ = start_lines(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "SIGHUP: reloading" in text + process.stderr.read()


def test_a_stop_while_it_starts_is_a_stop_as_any(tmp_path: Path) -> None:
    (tmp_path / "backupgw.toml").write_text(
        "[[events.hook]]\nname = 'a'\nurl = 'http://127.0.0.1:1/'\n"
        "headers.a = { command = ['sh', '-c', 'kill -TERM $PPID; exec sleep 60'] }\n"
    )
    (tmp_path / "backupgw.toml").chmod(0o600)
    with serving(tmp_path) as process:
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_who_asks_twice_to_stop_kills_nothing(tmp_path: Path, workers: int) -> None:
    program = (
        "import atexit, os, signal, sys\n"
        "from backupgw.runtime.cli import main\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
        "    atexit.register(os.kill, os.getpid(), number)\n"
        "sys.exit(main(['serve']))\n"
    )
    with serving(
        tmp_path, [sys.executable, "-c", program], BACKUPGW_REST__WORKERS=str(workers)
    ) as process:
        start_lines(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_it_does_not_serve_strangers_without_passwords(tmp_path: Path) -> None:
    with serving(tmp_path, BACKUPGW_REST__LISTEN="0.0.0.0:0") as process:
        assert process.stderr is not None
        text = process.stderr.read()
        assert process.wait(30) == 1
    assert text.startswith("BACKUPGW_REST__LISTEN: rest.listen: ")
    assert "make one with: " in text
    assert "Traceback" not in text


def test_with_every_service_off_it_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, BACKUPGW_REST__ENABLED="false") as process:
        assert process.stderr is not None
        text = process.stderr.read()
        assert process.wait(30) == 1
    assert text.startswith("backupgw: no service is enabled")
