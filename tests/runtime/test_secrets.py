"""Secrets come from where the settings say, and appear nowhere else."""

import json
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from backupgw.runtime import secrets
from backupgw.runtime.secrets import Secret, SecretError, names_secret, redact_url


class Model(BaseModel):
    password: Secret


def secret(value: Any) -> Secret:
    return Model.model_validate({"password": value}).password


def test_a_literal(tmp_path: Path) -> None:
    assert secret("hunter2").reveal() == "hunter2"
    assert secret("hunter2").literal


def test_a_file_loses_one_newline(tmp_path: Path) -> None:
    path = tmp_path / "pw"
    path.write_text("hunter2\n\n")
    path.chmod(0o600)
    assert secret({"file": str(path)}).reveal() == "hunter2\n"
    path.write_bytes(b"hunter2\r\n")
    assert secret({"file": str(path)}).reveal() == "hunter2", "read afresh, not remembered"


def test_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "hunter2")
    assert secret({"env": "SOME_PASSWORD"}).reveal() == "hunter2"
    monkeypatch.delenv("SOME_PASSWORD")
    with pytest.raises(SecretError, match="SOME_PASSWORD"):
        secret({"env": "SOME_PASSWORD"}).reveal()


def test_a_command_is_not_read_by_a_shell() -> None:
    assert secret({"command": ["printf", "%s\n", "$HOME `id`"]}).reveal() == "$HOME `id`"


def test_a_failing_command_shows_its_complaint_and_not_its_output() -> None:
    failing = secret(
        {"command": ["sh", "-c", "echo hunter2; echo no key for http://u:p@h >&2; exit 3"]}
    )
    with pytest.raises(SecretError) as caught:
        failing.reveal()
    text = str(caught.value)
    assert "status 3: no key for http://***@h" in text
    assert "hunter2" not in text


def test_a_command_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "COMMAND_TIMEOUT", 0.2)
    hanging = secret({"command": ["sh", "-c", "echo hunter2; exec sleep 60"]})
    with pytest.raises(SecretError, match="took longer") as caught:
        hanging.reveal()
    chain = f"{caught.value!r} {caught.value.__cause__!r}"
    assert "hunter2" not in chain
    assert caught.value.__suppress_context__, "the suppressed one carries the output"


@pytest.mark.parametrize("command", [["/no/such/program"], ["true"], ["printf", "\\377"]])
def test_a_command_without_a_usable_answer(command: list[str]) -> None:
    with pytest.raises(SecretError):
        secret({"command": command}).reveal()


def test_files_that_hold_no_secret(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="No such file"):
        secret({"file": str(tmp_path / "none")}).reveal()
    with pytest.raises(SecretError, match="not a regular file"):
        secret({"file": str(tmp_path)}).reveal()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SecretError, match="not a regular file"):
        secret({"file": str(tmp_path / "pipe")}).reveal()
    (tmp_path / "empty").touch(0o600)
    with pytest.raises(SecretError, match="empty"):
        secret({"file": str(tmp_path / "empty")}).reveal()
    (tmp_path / "big").write_bytes(b"x" * (secrets.MAX_FILE_BYTES + 1))
    with pytest.raises(SecretError, match="more than"):
        secret({"file": str(tmp_path / "big")}).reveal()


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)])
def test_a_file_that_others_can_read_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: int
) -> None:
    path = tmp_path / f"pw{mode:o}"
    path.write_text("hunter2")
    path.chmod(mode)
    with caplog.at_level(logging.WARNING):
        secret({"file": str(path)}).reveal()
        secret({"file": str(path)}).reveal()
    assert [f"chmod 600 {path}"[:9] in r.getMessage() for r in caplog.records] == [True] * warned
    assert "hunter2" not in caplog.text


def test_it_shows_itself_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    model = Model.model_validate({"password": "hunter2"})
    shown = f"{model} {model!r} {model.password} {model.password!r} {model.password:>9} {[model]}"
    shown += model.model_dump_json() + json.dumps(model.model_dump(mode="json"))
    shown += str(model.model_dump()) + "%s" % model.password  # noqa: UP031
    logging.getLogger("x").warning("%s %r", model.password, model)
    assert "hunter2" not in shown + caplog.text
    assert "***" in shown


def test_it_can_be_handed_to_a_worker_process() -> None:
    for value in ("hunter2", {"env": "X"}, {"command": ["a", "b"]}):
        assert pickle.loads(pickle.dumps(secret(value))) == secret(value)


def test_arguments_of_a_command_may_be_secret_too() -> None:
    shown = repr(secret({"command": ["vault", "read", "-token=hunter2"]}))
    assert "vault" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    "wrong",
    [
        3, None, ["hunter2"], {}, {"fiel": "/x"}, {"file": "/x", "env": "Y"}, {"file": ""},
        {"file": 3}, {"env": "a\0b"}, {"command": "pass show x"}, {"command": []},
        {"command": ["a", 1]},
    ],
)  # fmt: skip
def test_what_is_no_secret_is_refused_without_repeating_it(wrong: object) -> None:
    with pytest.raises(ValidationError) as caught:
        secret(wrong)
    [error] = caught.value.errors()
    assert "hunter2" not in error["msg"]


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("s3:KEY:SEC/RET+x@http://h:80/b", "s3:***@http://h:80/b"),
        ("open rest:http://u:p@h/: no", "open rest:http://***@h/: no"),
        ("sftp://user@host/p", "sftp://***@host/p"),
        ("http://u:p@ss@host/x", "http://***@host/x"),
        ("http://:p@host", "http://***@host"),
        ("http://host:8000/a@b", "http://host:8000/a@b"),
        ("'https://h/p?X-Amz-Signature=ab&c=d' failed", "'https://h/p?***' failed"),
        ("two https://a/?x=1 http://u:p@b?y", "two https://a/?*** http://***@b?***"),
        ("memory:", "memory:"),
        ("a: b? c@d", "a: b? c@d"),
        ("file:///srv/a@b", "file:///srv/a@b"),
    ],
)
def test_urls_lose_user_password_and_query(text: str, redacted: str) -> None:
    assert redact_url(text) == redacted


def test_hostile_text_is_redacted_in_linear_time() -> None:
    # Would take minutes with an unbounded pattern, which the suite's timeout ends.
    for text in (
        "a:b:" * 20_000 + "@ a:b:" * 10_000,
        "a://" * 30_000 + "?x",
        "a." * 40_000 + ":@?",
    ):
        assert redact_url(text)


@pytest.mark.parametrize("name", ["password", "rest_password", "token", "secret_key", "api_key"])
def test_names_of_secrets(name: str) -> None:
    assert names_secret(name)
    assert not names_secret(f"{name}_file")
    assert not names_secret("key")
