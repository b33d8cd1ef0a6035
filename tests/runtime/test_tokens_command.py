"""`backupgw token` and `backupgw auth explain`, as an operator uses them."""

import json
from pathlib import Path

import pytest

from backupgw.runtime import cli


class Shell:
    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config, self._capsys = config, capsys
        self.out = self.err = ""

    def __call__(self, *words: str) -> int:
        self._capsys.readouterr()
        try:
            status = cli.main(["--config", str(self._config), *words])
        finally:
            self.out, self.err = self._capsys.readouterr()
        return status


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    config = tmp_path / "gw.toml"
    config.write_text(
        f'[state]\nfolder = "{tmp_path}/state"\n'
        '[[auth.rule]]\nwho = ["*"]\nallow = ["append"]\non = ["repository:*/{user}/**"]\n'
    )
    return Shell(config, capsys)


CREATE = ("token", "create", "--user", "ann", "--on", "repository:default/ann/**")


def test_the_life_of_a_token(shell: Shell) -> None:
    assert shell(*CREATE, "--allow", "append", "--name", "laptop", "--expires", "30d") == 0
    text = shell.out.strip()
    assert text.startswith("bgw_")
    assert "not shown again" in shell.err
    token_id = text.split("_")[1]
    assert shell("token", "list") == 0
    header, row = shell.out.splitlines()
    assert header.split() == ["id", "user", "name", "allow", "on", "expires", "used", "state"]
    assert row.split()[:5] == [token_id, "ann", "laptop", "append", "repository:default/ann/**"]
    assert shell("token", "show", token_id, "--json") == 0
    assert json.loads(shell.out)["state"] == "good"
    assert text.split("_", 2)[2] not in shell.out
    assert shell("token", "revoke", "--dry-run", token_id) == 0
    assert "would revoke" in shell.out
    assert shell("token", "revoke", token_id, "0" * 12) == 3
    assert f"no token {'0' * 12}" in shell.err
    assert shell("token", "list") == 0
    assert token_id not in shell.out
    assert shell("token", "list", "--all") == 0
    assert shell.out.splitlines()[1].endswith("revoked")
    assert shell("token", "revoke", "0" * 12) == 1
    assert shell("token", "show", "0" * 12) == 1
    assert "token list --all" in shell.err


def test_a_script_gets_json(shell: Shell) -> None:
    assert shell(*CREATE, "--allow", "read-only,add", "--expires", "never", "--json") == 0
    made = json.loads(shell.out)
    assert made["token"].startswith(f"bgw_{made['id']}_")
    assert made["expires"] is None
    assert made["allow"] == "open, list, load, add"
    assert shell("token", "list", "--json", "--user", "ann") == 0
    assert [token["id"] for token in json.loads(shell.out)] == [made["id"]]
    assert shell("token", "list", "--json", "--user", "bob") == 0
    assert json.loads(shell.out) == []


def test_trying_out_leaves_nothing(shell: Shell) -> None:
    assert shell(*CREATE, "--allow", "append", "--dry-run") == 0
    assert "append" in shell.out
    assert "bgw_" not in shell.out
    assert shell("token", "list", "--json", "--all") == 0
    assert json.loads(shell.out) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--allow", "apend"), "'apend' is no action"),
        (("--allow", "append", "--on", "ann"), "no pattern"),
        (("--allow", "append", "--on", "repository:ann/x"), "there is no place 'ann'"),
        (("--allow", "append", "--expires", "soon"), "no time to end"),
        (("--allow", "append", "--expires", "2020-01-01"), "cannot end before"),
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(
    shell: Shell, words: tuple[str, ...], told: str
) -> None:
    assert shell(*CREATE, *words) == 2
    assert told in shell.err
    assert shell.out == ""


def test_a_name_cannot_pretend_to_be_another_row(shell: Shell) -> None:
    assert shell(*CREATE, "--allow", "append", "--name", "x\nffffffffffff root\x1b[2J") == 0
    assert shell("token", "list") == 0
    assert len(shell.out.splitlines()) == 2
    assert "\x1b" not in shell.out


def test_every_decision_can_be_explained(shell: Shell, tmp_path: Path) -> None:
    target = "repository:default/ann/laptop"
    assert shell("auth", "explain", "ann", "append", target) == 0
    assert shell.out.startswith("allowed: ann is allowed append")
    assert f"by rule 1 ({tmp_path}/gw.toml:3)" in shell.out
    assert shell("auth", "explain", "ann", "delete", target) == 1
    assert "denied: no rule allows ann delete" in shell.out
    assert shell("auth", "explain", "bob", "read-only", target, "--json") == 1
    answer = json.loads(shell.out)
    assert answer["allowed"] is False
    assert answer["rules"] == []
    assert shell(*CREATE, "--allow", "write-only") == 0
    token_id = shell.out.split("_")[1]
    assert shell("auth", "explain", "ann", "add", target, "--token", token_id) == 0
    assert shell("auth", "explain", "ann", "load", target, "--token", token_id) == 1
    assert "the token is not for load" in shell.out
    assert shell("auth", "explain", "bob", "add", target, "--token", token_id) == 1
    assert "belongs to 'ann'" in shell.err
    assert shell("token", "revoke", token_id) == 0
    assert shell("auth", "explain", "ann", "add", target, "--token", token_id) == 1
    assert "is revoked" in shell.err


@pytest.mark.parametrize(
    ("action", "target", "status", "told"),
    [
        ("fly", "repository:default/x", 2, "no action"),
        ("add", "default/x", 2, "no target"),
        ("add", "repository:default/../x", 2, "no target"),
        ("add", "repository:nas/x", 1, "there is no place 'nas'"),
    ],
)
def test_a_question_that_makes_no_sense(
    shell: Shell, action: str, target: str, status: int, told: str
) -> None:
    assert shell("auth", "explain", "ann", action, target) == status
    assert told in shell.err


def test_a_damaged_store_is_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "state.sqlite3").write_bytes(b"no database" * 500)
    assert shell("token", "list") == 1
    assert "state.sqlite3" in shell.err
    assert "internal error" not in shell.err
