"""The `backupgw` command: what it prints, what it loads, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from backupgw.kvstore.backends.errors import BackendConnectionError
from backupgw.kvstore.names import InvalidName
from backupgw.runtime import cli, command_line, settings_sections
from backupgw.runtime.command import Command, CommandError, UsageError, add_json_option
from backupgw.runtime.command_help import help_line
from backupgw.runtime.settings import SettingsError
from backupgw.runtime.state_folder import SYSTEM_FOLDER
from tests.servers.child import Child

HERE = __name__


def backupgw(
    *words: str, cwd: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BACKUPGW_")}
    return subprocess.run(
        [sys.executable, "-m", "backupgw.runtime.cli", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean | environ,
        timeout=60,
        check=False,
    )


Behave = Callable[[Namespace], int]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Behave], None]:
    """Make `backupgw demo` run a function."""

    def offer_it(run: Behave) -> None:
        command = Command("demo", "do as the test says", add_json_option, run)
        monkeypatch.setattr(sys.modules[HERE], "demo", command, raising=False)
        entries = [EntryPoint("demo", f"{HERE}:demo", command_line.GROUP)]
        monkeypatch.setattr(command_line, "entry_points", lambda group: entries)

    return offer_it


def test_help_lists_the_commands_with_what_they_do_and_imports_none() -> None:
    program = (
        "import sys\n"
        "from backupgw.runtime.cli import main\n"
        "status = main(['--help'])\n"
        "heavy = {'pydantic', 'structlog', 'starlette', 'uvicorn', 'asyncio', 'ssl', 'bcrypt'}\n"
        "heavy |= {'backupgw.restserver.cli', 'backupgw.runtime.commands', 'backupgw.kvstore'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)), status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "loaded: [] 0" in done.stdout
    for name, line in {
        "config": "check, show or begin the settings, name backends",
        "doctor": "check settings, places, passwords and certificates",
        "serve": "serve every enabled service until stopped",
    }.items():
        assert any(row.split() == [name, *line.split()] for row in done.stdout.splitlines())


def test_every_installed_command_has_its_help_line() -> None:
    for entry in entry_points(group=command_line.GROUP):
        assert help_line(entry.value) == entry.load().help != ""


def test_a_help_line_that_cannot_be_read_is_no_reason_to_fail() -> None:
    for target in ("no.such.module:x", "json:dumps", "backupgw:x", "sys:x", "math:pi", "nonsense"):
        assert help_line(target) == ""


def test_version() -> None:
    done = backupgw("--version")
    assert (done.returncode, done.stdout) == (0, "backupgw 0.1.0\n")


@pytest.mark.parametrize(
    "words", [(), ("nope",), ("config",), ("config", "nope"), ("--nope",), ("config", "--config")]
)
def test_wrong_usage_ends_with_2_and_says_how_it_goes(words: tuple[str, ...]) -> None:
    done = backupgw(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: backupgw" in done.stderr


def test_global_options_are_understood_before_and_after_the_command(
    offer: Callable[[Behave], None],
) -> None:
    seen: list[tuple[Path | None, bool, bool]] = []

    def run(arguments: Namespace) -> int:
        seen.append((arguments.config, arguments.debug, arguments.json))
        return 3

    offer(run)
    assert cli.main(["demo"]) == 3
    cli.main(["--config", "a.toml", "--debug", "demo", "--json"])
    cli.main(["--config=a.toml", "demo", "--debug"])
    cli.main(["--config", "a.toml", "demo", "--config", "b.toml"])
    assert seen == [
        (None, False, False),
        (Path("a.toml"), True, True),
        (Path("a.toml"), True, False),
        (Path("b.toml"), False, False),
    ]


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (CommandError("no such place"), 1, "backupgw: no such place\n"),
        (UsageError("want one of these"), 2, "backupgw: want one of these\n"),
        (SettingsError("a is bad", "b too"), 1, "settings: a is bad\nsettings: b too\n"),
        (
            BackendConnectionError("sftp://me:hunter2@nas is gone"),
            1,
            "backupgw: sftp://***@nas is gone\n",
        ),
        (BackendConnectionError(), 1, "backupgw: BackendConnectionError\n"),
        (InvalidName("has a NUL"), 1, "backupgw: has a NUL\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "backupgw: /x: Permission denied\n"),
        (EOFError(), 1, "backupgw: the input ended where an answer was wanted\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
    ],
)  # fmt: skip
def test_each_error_is_one_clear_line_and_a_status(
    offer: Callable[[Behave], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    says: str,
) -> None:
    def run(arguments: Namespace) -> int:
        raise error

    offer(run)
    assert cli.main(["demo"]) == status
    assert capsys.readouterr() == ("", says)


def test_a_defect_is_called_one_and_debug_shows_where(
    offer: Callable[[Behave], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: Namespace) -> int:
        raise ZeroDivisionError("division by zero")

    offer(run)
    assert cli.main(["demo"]) == 1
    plain = capsys.readouterr().err
    assert "internal error: ZeroDivisionError: division by zero" in plain
    assert "Traceback" not in plain
    assert cli.main(["--debug", "demo"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_error_to_tell() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "backupgw.runtime.cli", "config", "schema"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == 141


def test_a_command_whose_package_is_damaged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [
        EntryPoint("x", "no.such:command", command_line.GROUP),
        EntryPoint("y", "sys:path", command_line.GROUP),
    ]
    monkeypatch.setattr(command_line, "entry_points", lambda group: entries)
    assert cli.main(["x"]) == 1
    assert "cannot be imported" in capsys.readouterr().err
    assert cli.main(["y"]) == 1
    assert "is none" in capsys.readouterr().err
    assert cli.main(["--help"]) == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no.such:Model", r"section 'x' \(no\.such:Model\) cannot be imported"),
        ("sys:path", "sys:path is registered as a section and is none"),
        ("backupgw.runtime.command:Command", "Command is registered as a section and is none"),
    ],
)
def test_a_section_whose_package_is_damaged(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    entry = EntryPoint("x", value, settings_sections.GROUP)
    monkeypatch.setattr(settings_sections, "entry_points", lambda group: [entry])
    with pytest.raises(CommandError, match=message):
        settings_sections.sections(["x"])


def test_check_reports_every_mistake_for_people_and_machines(tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_text('[log]\nlevle = "info"\n[places.default]\nurl = "file:///x"\n')
    done = backupgw("config", "check", "--config", str(config))
    assert done.returncode == 1
    assert done.stderr == f"{config}:2: log.levle: is not a setting; did you mean 'level'?\n"
    done = backupgw("config", "check", "--json", "--config", str(config), BACKUPGW_LOG__FORMAT="x")
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert not answer["valid"]
    assert {(m["source"], m["line"], m["key"]) for m in answer["mistakes"]} == {
        ("file", 2, "log.levle"),
        ("environment", None, "log.format"),
    }


def test_check_finds_options_that_only_the_backend_knows_and_secrets_that_are_missing(
    tmp_path: Path,
) -> None:
    config = tmp_path / "x.toml"
    config.write_text(
        '[places.default]\nurl = "file:///x"\ndurabilty = "fast"\n'
        '[places.second]\nurl = "file:///y"\npassword = { env = "NOT_SET" }\n'
    )
    done = backupgw("config", "check", "--config", str(config))
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{config}:1: places.default: ")
    assert "durability" in first
    assert second.startswith(f"{config}:4: places.second: ")
    assert "NOT_SET" in second


def test_the_sample_is_valid_as_it_is_and_with_every_line_in_effect(tmp_path: Path) -> None:
    done = backupgw("config", "init", cwd=tmp_path)
    config = tmp_path / "backupgw.toml"
    assert done.returncode == 0
    assert config.stat().st_mode & 0o777 == 0o600
    assert backupgw("config", "check", cwd=tmp_path).returncode == 0
    sample = config.read_text()
    assert f'"file://{SYSTEM_FOLDER}"' not in sample, "backups do not lie among the gateway's state"
    assert backupgw("config", "init", "-", cwd=tmp_path).stdout == sample
    lines = [
        line.removeprefix("# ") if " = " in line and not line.startswith("#  ") else line
        for line in sample.splitlines()
        if not line.endswith(" =")
    ]
    everything = tmp_path / "everything.toml"
    everything.write_text("\n".join(lines))
    done = backupgw("config", "check", "--config", str(everything), cwd=tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    assert sum("=" in line for line in lines) > 30


def test_init_replaces_nothing_unasked(tmp_path: Path) -> None:
    config = tmp_path / "backupgw.toml"
    config.write_text("# mine\n")
    done = backupgw("config", "init", cwd=tmp_path)
    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert config.read_text() == "# mine\n"
    assert backupgw("config", "init", "--force", cwd=tmp_path).returncode == 0
    assert config.read_text() != "# mine\n"
    done = backupgw("config", "init", str(tmp_path / "no" / "folder.toml"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_show_tells_each_value_its_source_and_no_secret(tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_text(
        '[places.default]\nurl = "memory://me:hunter2@h/"\npassword = "hunter2"\n'
        'token = { file = "/etc/token" }\n[log]\nlevel = "debug"\n'
    )
    config.chmod(0o600)
    done = backupgw("config", "show", "--config", str(config), BACKUPGW_LOG__FORMAT="json")
    assert done.returncode == 0
    rows = [row.split("#")[-1].strip() for row in done.stdout.splitlines() if row.startswith("l")]
    assert f"{config}:6" in rows
    assert 'format = "json"' in done.stdout
    assert "# BACKUPGW_LOG__FORMAT" in done.stdout
    assert "file /etc/token" in done.stdout
    as_json = backupgw("config", "show", "--json", "--config", str(config)).stdout
    answer = json.loads(as_json)
    assert answer["log.level"] == {"value": "debug", "source": f"{config}:6"}
    assert answer["places.default.password"]["value"] == "***"
    assert "hunter2" not in done.stdout + as_json


def test_the_schema_knows_every_section() -> None:
    schema = json.loads(backupgw("config", "schema").stdout)
    assert {"places", "log"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert schema["properties"]["log"]["properties"]["level"]["enum"]


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_tidy_up_quietly(sent: signal.Signals, status: int) -> None:
    program = (
        "import signal, sys, time\n"
        # A shell's background job starts with SIGINT ignored, and so would this one.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from backupgw.runtime import cli, command_line\n"
        "from backupgw.runtime.command import Command\n"
        "def run(arguments):\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('tidied', flush=True)\n"
        "command_line.load = lambda *_: Command('config', 'x', lambda parser: None, run)\n"
        "sys.exit(cli.main(['config']))\n"
    )
    with Child(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(sent)
        assert process.wait(30) == status
        assert process.stdout.read() == b"tidied\n"
        assert process.stderr.read() == b""


def test_a_parser_of_a_command_shows_the_global_options(
    offer: Callable[[Behave], None], capsys: pytest.CaptureFixture[str]
) -> None:
    offer(lambda arguments: 0)
    assert cli.main(["demo", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--config PATH" in text
    assert "do as the test says" in text
