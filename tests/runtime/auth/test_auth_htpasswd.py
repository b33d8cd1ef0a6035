"""htpasswd files: what is accepted, what is refused and how, and what happens when they change."""

import base64
import hashlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from backupgw.runtime.auth import Htpasswd, HtpasswdError
from backupgw.runtime.auth import htpasswd as module


def hashed(password: str | bytes, cost: int = 4, prefix: str = "2y") -> str:
    raw = password.encode() if isinstance(password, str) else password
    digest = bcrypt.hashpw(raw[:72], bcrypt.gensalt(cost)).decode()
    return f"${prefix}{digest[3:]}"


def sha(password: str) -> str:
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()


def write(path: Path, **users: str) -> Path:
    """Replace the file as a careful tool does, by a rename, some seconds after it was written."""
    new = path.with_suffix(".new")
    new.write_text("".join(f"{user}:{digest}\n" for user, digest in users.items()))
    os.utime(new, (time.time() - 3, time.time() - 3))
    new.replace(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "htpasswd"


def test_the_hashes_that_rest_server_takes(path: Path) -> None:
    file = Htpasswd(
        write(
            path,
            a=hashed("pa", prefix="2a"),
            b=hashed("pb", prefix="2b"),
            y=hashed("py", prefix="2y"),
            s=sha("ps"),
        )
    )
    for user in "abys":
        assert file.verify(user, f"p{user}".encode()) == file.users[user]
        assert file.verify(user, b"wrong") is None
        assert file.verify(user, b"") is None
    assert file.verify("nobody", b"pa") is None


def test_comments_blank_lines_windows_line_ends_and_further_fields(path: Path) -> None:
    path.write_bytes(
        b"\xef\xbb\xbf# users\r\n\r\n  \r\na:" + sha("p").encode() + b":Ann Smith\r\n #b:x\r\n"
    )
    assert dict(Htpasswd(path).users) == {"a": sha("p")}


@pytest.mark.parametrize("user", ["ann", "Ünal", "名前", "a.b-c_d@example.org", "0"])
def test_user_names_that_rest_server_takes(path: Path, user: str) -> None:
    assert Htpasswd(write(path, **{user: sha("pä")})).verify(user, "pä".encode())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a b:{SHA}x", "user name 'a b' has other characters than letters"),
        ("../x:{SHA}x", "user name '../x' has other characters"),
        ("..:{SHA}x", "cannot be a folder's name"),
        (":{SHA}x", "user name '' has other"),
        ("a²:{SHA}x", "has other characters"),
        ("justaname", "has no ':'; want user:hash"),
        (
            "a:",
            "user a: there is no hash, and only bcrypt and {SHA} are accepted; run: htpasswd -B",
        ),
        ("a:$apr1$x$y", "user a: the hash is Apache's MD5, and only"),
        ("a:$6$x$y", "user a: the hash is SHA-512"),
        ("a:hunter2", "user a: the hash is of no known kind"),
        ("a:{SHA}hunter2", "user a: the {SHA} hash is damaged"),
        ("a:$2y$10$hunter2", "user a: the bcrypt hash is damaged"),
        (f"a:$2y$31${'x' * 53}", "bcrypt cost 31 is not between 4 and 18; run: htpasswd -B -C 10"),
    ],
)
def test_a_bad_line_is_told_with_its_place_and_the_cure(path: Path, line: str, says: str) -> None:
    path.write_text(f"# first\nok:{sha('p')}\n{line}\n")
    with pytest.raises(HtpasswdError) as caught:
        Htpasswd(path)
    text = str(caught.value)
    assert text.startswith(f"{path}:3: ")
    assert says in text
    assert "hunter2" not in text, "it may be a password in plain text"


def test_all_bad_lines_are_told_at_once(path: Path) -> None:
    path.write_text("a:x\nb:y\n")
    with pytest.raises(HtpasswdError) as caught:
        Htpasswd(path)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        f"{path}:1",
        f"{path}:2",
    ]


def test_a_file_that_cannot_be_read_keeps_the_server_from_starting(path: Path) -> None:
    with pytest.raises(HtpasswdError, match=r"No such file.*htpasswd -B -c"):
        Htpasswd(path)
    path.mkdir()
    with pytest.raises(HtpasswdError, match="not a regular file"):
        Htpasswd(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(HtpasswdError, match="not a regular file"):
        Htpasswd(path)


def test_an_empty_file_lets_nobody_in(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.touch()
    with caplog.at_level(logging.WARNING):
        file = Htpasswd(path)
    assert file.verify("", b"") is None
    assert "nobody can log in" in caplog.text


def test_bytes_that_are_no_text_are_a_bad_line(path: Path) -> None:
    path.write_bytes(b"a\xff:" + sha("p").encode())
    with pytest.raises(HtpasswdError, match="other characters"):
        Htpasswd(path)


@pytest.mark.parametrize("password", ["x" * 72, "x" * 73, "ä" * 60, "x" * 500, "a\0b"])
def test_long_passwords_work_as_with_rest_server(path: Path, password: str) -> None:
    """golang.org/x/crypto/bcrypt and Apache look at 72 bytes and no more."""
    file = Htpasswd(write(path, a=hashed(password), s=sha(password)))
    assert file.verify("a", password.encode())
    assert file.verify("a", b"y" + password.encode()) is None
    assert file.verify("s", password.encode())
    assert file.verify("s", password.encode() + b"y") is None, "{SHA} looks at all of it"


def test_every_refusal_costs_the_same_work(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the time of a 401 would tell who exists. Work is counted in bcrypt's rounds."""
    work: list[int] = []

    def checkpw(password: bytes, digest: bytes) -> bool:
        work.append(2 ** int(digest[4:6]))
        return False

    def hashpw(password: bytes, salt: bytes) -> bytes:
        work.append(2 ** int(salt[4:6]))
        return b""

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    monkeypatch.setattr(bcrypt, "hashpw", hashpw)
    x = "x" * 53
    file = Htpasswd(
        write(path, low=f"$2y$05${x}", mid=f"$2b$08${x}", high=f"$2a$10${x}", sha=sha("p"))
    )
    for user in ("low", "mid", "high", "sha", "nobody"):
        work.clear()
        assert file.verify(user, b"wrong") is None
        assert sum(work) == 2**10, user


def test_the_dummy_is_real_work_for_the_real_bcrypt(path: Path) -> None:
    for cost in (4, 5, 12):
        assert bcrypt.hashpw(b"x", module._DUMMY_SALT % cost).startswith(b"$2b$%02d$" % cost)


def test_a_changed_file_counts_at_the_next_look(path: Path) -> None:
    file = Htpasswd(write(path, a=sha("1"), b=sha("b")))
    write(path, a=sha("2"), c=sha("c"))
    file.refresh()
    assert file.verify("a", b"1") is None
    assert file.verify("a", b"2")
    assert file.verify("b", b"b") is None
    assert file.verify("c", b"c")


def test_a_change_in_place_of_the_same_size_and_time_is_seen(path: Path) -> None:
    file = Htpasswd(write(path, a=sha("1")))
    before = path.stat()
    path.write_text(f"a:{sha('2')}\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    file.refresh()
    assert file.verify("a", b"2")


@pytest.mark.parametrize("how", ["broken", "gone", "folder", "unreadable text", "emptied"])
def test_the_last_good_file_holds_and_the_next_good_one_counts(
    path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    file = Htpasswd(write(path, a=sha("1")))
    match how:
        case "broken":
            path.write_text(f"a:{sha('2')}\nb:half a li")
        case "gone":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
        case "unreadable text":
            path.write_bytes(b"\xff\xfe:\n")
        case _:
            path.write_text("")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            file.refresh()
    assert file.verify("a", b"1")
    assert len(caplog.records) == (0 if how == "emptied" else 1), "told once, not at each look"
    if how == "folder":
        path.rmdir()
    write(path, a=sha("3"))
    file.refresh()
    assert file.verify("a", b"3")
    assert file.verify("a", b"1") is None


def test_a_half_written_file_locks_nobody_out_and_is_believed_once_it_rests(path: Path) -> None:
    file = Htpasswd(write(path, a=sha("1"), b=sha("2")))
    path.write_text(f"a:{sha('1')}\n")
    file.refresh()
    assert file.verify("b", b"2"), "the line may be about to come"
    os.utime(path, (1, 1))
    file.refresh()
    assert file.verify("b", b"2") is None
    path.write_text(f"c:{sha('3')}\n")
    file.reload()
    assert file.verify("a", b"1"), "SIGHUP may have been meant for the logs"


def test_a_file_emptied_for_good_locks_everybody_out(path: Path) -> None:
    file = Htpasswd(write(path, a=sha("1")))
    path.write_text("")
    os.utime(path, (1, 1))
    file.refresh()
    assert file.verify("a", b"1") is None


def test_a_reload_is_told_of_even_if_nothing_changed(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Htpasswd(write(path, a=sha("1")))
    path.write_text("broken")
    with caplog.at_level(logging.INFO):
        file.reload()
        file.reload()
    assert len(caplog.records) == 2, "whoever sends SIGHUP wants an answer"


def test_a_file_replaced_again_and_again_never_locks_a_steady_user_out(path: Path) -> None:
    """Rewritten in place, as `htpasswd` does it: truncated, then written."""
    steady = f"steady:{sha('p')}\n"
    path.write_text(steady)
    file = Htpasswd(path)
    stop = threading.Event()

    def rewrite() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            # Long enough for a reader to meet it half written.
            with path.open("w", buffering=1) as out:
                for user in range(50):
                    out.write(f"u{user}:{sha(str(number))}\n")
                out.write(steady)

    writer = threading.Thread(target=rewrite)
    writer.start()
    refused: list[Any] = []
    try:
        for _ in range(2000):
            file.refresh()
            if file.verify("steady", b"p") is None:
                refused.append(dict(file.users))
    finally:
        stop.set()
        writer.join(60)
    assert refused == []
    file.refresh()
    assert len(file.users) == 51, "and what was written last counts in the end"


def test_a_file_that_is_there_is_never_to_be_made_anew(tmp_path: Path) -> None:
    # `htpasswd -c`, the advice for a missing file, would empty it.
    path = tmp_path / "htpasswd"
    path.mkdir()
    with pytest.raises(HtpasswdError) as refused:
        Htpasswd(path)
    assert "htpasswd -B -c" not in str(refused.value)
    assert "check what it is" in str(refused.value)
