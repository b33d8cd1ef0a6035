"""How `backupgw rest serve` starts, and when it refuses to: one line that says what to do."""

from __future__ import annotations

import datetime
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme
from tests.restserver.client import Client
from tests.servers.child import Child
from tests.servers.gateway import Gateway
from tests.servers.refused_start import refused_start
from tests.servers.tls import Certificate

from backupgw.restserver import cli

COMMAND = [str(Path(sys.executable).parent / "backupgw"), "rest", "serve"]


class NamedPlace(Gateway):
    """A gateway that serves the place of its settings file instead of a folder."""

    def _arguments(self) -> list[str]:
        return super()._arguments()[2:]


def refused(folder: Path, *flags: str) -> str:
    """Start a server that must not start; return what it says."""
    return refused_start(
        [*COMMAND, "--path", str(folder / "data"), *flags],
        folder,
        statuses=(1, 2),
        environment={"XDG_CONFIG_HOME": str(folder)},
    )


@pytest.mark.parametrize("listen", [":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:8000"])
def test_without_passwords_it_does_not_listen_to_others(tmp_path: Path, listen: str) -> None:
    said = refused(tmp_path, "--listen", listen)
    assert f"{listen} can be reached by others" in said
    assert "backupgw rest user add USER --htpasswd-file" in said
    assert "--no-auth" in said


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0", "unix:s"])
def test_without_passwords_it_listens_to_this_machine(tmp_path: Path, listen: str) -> None:
    (tmp_path / "data").mkdir()
    started = Child(
        [*COMMAND, "--path", str(tmp_path / "data"), "--listen", listen],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    with started:
        assert started.stderr.readline().startswith("start server on ")
        started.terminate()
    assert started.returncode == 0
    assert (tmp_path / "data").is_dir()


def test_a_socket_handed_over_is_no_way_around(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        code = (
            "import os, sys\n"
            "os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True)\n"
            "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}\n"
            "os.execv(sys.argv[2], sys.argv[2:])\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, str(listener.fileno()), *COMMAND, "--path", "data"],
            cwd=tmp_path,
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert "can be reached by others" in ended.stderr


def test_a_password_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    flags = ("--listen", "127.0.0.1:0", "--htpasswd-file", "missing", "--workers", "2")
    said = refused(tmp_path, *flags)
    assert said.count("missing: cannot be read") == 1, "told once, whatever the workers"
    assert "a worker" not in said


@pytest.mark.parametrize("flags", [(), ("--no-auth",)], ids=["no file", "no-auth"])
def test_private_repositories_need_users(tmp_path: Path, flags: Sequence[str]) -> None:
    assert "private" in refused(tmp_path, "--private-repos", *flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--listen", "nonsense"), "has no port"),
        (("--listen", "127.0.0.1:99999"), "is no port"),
        (("--max-size", "-1"), "at least 0"),
        (("--path", ""), "--path is empty"),
        (("--max-size", "much"), "invalid int value"),
        (("--tls-min-ver", "1.1"), "1.2"),
        (("--append-only=perhaps",), "neither true nor false"),
        (("--proxy-auth-username", "a b"), "proxy_auth_username"),
        (("--log", "missing/log"), "missing/log"),
        (("--tls",), "public_key"),
        (("--tls", "--tls-cert", "x"), "x"),
        (("--unknown",), "--unknown"),
    ],
)
def test_a_wrong_flag_is_named(tmp_path: Path, flags: Sequence[str], said: str) -> None:
    assert said in refused(tmp_path, *flags)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    assert "is not a folder" in refused(tmp_path)


def test_links_that_are_not_followed_are_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "alice").mkdir(parents=True)
    (tmp_path / "data" / "alice" / "laptop").symlink_to(tmp_path / "elsewhere")
    with Gateway(tmp_path / "data") as server:
        server.stop()
        said = server.process.output
    assert "alice/laptop" in said
    assert str(tmp_path / "elsewhere") in said
    assert "follow" in said


def test_tls_finds_rest_servers_file_names(tmp_path: Path, certificate: Certificate) -> None:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(certificate.chain, data / "public_key")
    shutil.copy(certificate.key, data / "private_key")
    started = Child(
        [*COMMAND, "--path", "data", "--listen", "127.0.0.1:0", "--tls"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    with started:
        assert started.stderr.readline().startswith("start server on ")
        started.terminate()


def test_tls_of_the_settings_file_finds_them_as_well(tmp_path: Path) -> None:
    (tmp_path / "gw.toml").write_text("[rest]\ntls = true\n")
    assert "data/public_key" in refused(tmp_path, "--config", "gw.toml")


def test_a_password_file_that_is_a_broken_link_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".htpasswd").symlink_to(tmp_path / "not" / "mounted")
    said = refused(tmp_path, "--listen", "127.0.0.1:0")
    assert ".htpasswd: cannot be read" in said


@pytest.mark.parametrize(
    "option", ['durability = "slow"', "follow = 5", "file_mode = 640", 'folder_mode = "x"']
)
def test_an_impossible_option_of_a_place_is_named(tmp_path: Path, option: str) -> None:
    (tmp_path / "gw.toml").write_text(
        f'[places.default]\nurl = "file://{tmp_path}/data"\n{option}\n'
    )
    checked = subprocess.run(
        [COMMAND[0], "config", "check", "--config", "gw.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 1
    assert checked.stderr.startswith("gw.toml:1: places.default: ")
    assert option.split()[0] in checked.stderr


def test_flags_may_say_true_or_false() -> None:
    from argparse import ArgumentParser

    parser = ArgumentParser()
    cli.configure(parser)
    parsed = parser.parse_args(["serve", "--append-only=false", "--no-verify-upload=true", "--tls"])
    found = {key: flag.value for key, flag in cli.overrides(parsed).items()}
    assert found == {"rest.append_only": False, "rest.verify_upload": False, "rest.tls": True}


def test_a_rule_for_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """It would protect nothing: with --path the place is called path."""
    (tmp_path / "backupgw.toml").write_text(
        '[[auth.rule]]\nwho = ["alice"]\nallow = ["read"]\non = ["repository:default/**"]\n'
    )
    said = refused(tmp_path, "--listen", "127.0.0.1:0")
    assert "backupgw.toml:4: auth.rule[0].on[0]: there is no place 'default'" in said


def test_the_layers_of_a_place_are_what_is_served(tmp_path: Path) -> None:
    config = tmp_path / "backupgw.toml"
    config.write_text(f'[places.default]\nurl = "file://{tmp_path}/data"\nlayers = ["readonly"]\n')
    (tmp_path / "data").mkdir()
    with NamedPlace(tmp_path / "data", flags=["--config", str(config)]) as server:
        assert Client(server).status("GET", "/repo/config") == 404
        assert Client(server).save("repo")[0] == 403


def test_limits_that_would_not_see_the_trash_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "backupgw.toml"
    config.write_text(
        f'[places.default]\nurl = "file://{tmp_path}/data"\n'
        'layers = ["observe", { layer = "trash", keep = "7d" }]\n'
        '[rest.quota.server]\nbytes = "1 GB"\n'
    )
    ended = subprocess.run(
        [*COMMAND, "--config", str(config)], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "remove observe, or the limits" in ended.stderr


def said_at_start(folder: Path, *flags: str) -> str:
    with Gateway(folder, flags=flags) as server:
        server.stop()
        return server.process.output


def test_a_folder_that_was_not_there_is_told(tmp_path: Path) -> None:
    told = f"{tmp_path}/mistyped was not there; it was made"
    assert told in said_at_start(tmp_path / "mistyped")
    assert told not in said_at_start(tmp_path / "mistyped")


@pytest.mark.parametrize(
    "lacks",
    [
        '[[events.hook]]\nname = "a"\nurl = "https://127.0.0.1/"\nsecret = { env = "NOT_THERE" }',
        '[[tokens.key]]\nid = "a"\nalgorithm = "HS256"\nsecret = { env = "NOT_THERE" }',
        '[[places.data.layers]]\nlayer = "encrypt"\npassphrase = { env = "NOT_THERE" }',
    ],
    ids=["hook", "signed tokens", "layer"],
)
def test_nothing_is_made_where_a_secret_is_missing(tmp_path: Path, lacks: str) -> None:
    users = tmp_path / "users"
    users.write_text("")
    config = tmp_path / "settings.toml"
    config.write_text(
        f'[state]\nfolder = "{tmp_path}/state"\n'
        f'[places.data]\nurl = "file://{tmp_path}/data"\n'
        f'[rest]\nplace = "data"\nlisten = ["127.0.0.1:0"]\nhtpasswd_file = "{users}"\n'
        f'[rest.verify]\nschedule = "1 1 * * *"\n{lacks}\n'
    )
    assert "NOT_THERE" in refused_start([*COMMAND, "--config", str(config)], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settings.toml", "users"]


def test_a_certificate_that_has_expired_is_told(tmp_path: Path) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    issued = trustme.CA().issue_cert("127.0.0.1", not_before=past, not_after=past)
    pair = tmp_path / "pair.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(pair))
    flags = ["--tls", "--tls-cert", str(pair), "--tls-key", str(pair), "--listen", "127.0.0.1:0"]
    command = [*COMMAND, "--path", str(tmp_path), "--no-auth", *flags]
    with Child(command, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        told = started.stderr.readline()
        started.terminate()
    assert f"TLS certificate {pair}: certificate has expired; clients will refuse it" in told


def test_a_flag_that_another_one_is_missing_for_is_named(tmp_path: Path) -> None:
    said = refused(tmp_path, "--path", str(tmp_path), "--tls-cert", "some.pem")
    assert said.startswith("--tls-cert: rest.tls_cert: tls_cert without tls;")


def test_a_size_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "gw.toml").write_text('[rest.quota.server]\nbytes = "2 XB"\n')
    said = refused(tmp_path, "--config", "gw.toml")
    assert "gw.toml:2: rest.quota.server.bytes: must be a number of bytes, such as" in said
