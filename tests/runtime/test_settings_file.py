"""The settings file: found where documented, and every value's line known."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupgw.runtime.settings_errors import SettingsError
from backupgw.runtime.settings_file import MAX_BYTES, SettingsFile, find, read


def lines_of(text: str) -> dict[str, int]:
    file = SettingsFile(Path("x.toml"), text, 0o600)
    found = {}

    def walk(value: Any, key: tuple[str | int, ...]) -> None:
        if key:
            found[".".join(map(str, key))] = file.line_of(key)
        if isinstance(value, dict):
            for name, item in value.items():
                walk(item, (*key, name))
        if isinstance(value, list):
            for number, item in enumerate(value):
                walk(item, (*key, number))

    walk(file.values, ())
    return found


def test_each_value_has_its_line() -> None:
    text = '''\
# a comment = "not a key"
top = 1

[a] # comment
x = """
[not.a.table]
y = 2
"""
y = { p = 1, q = [1, 2] }
"quoted key" = 'z'
[a.b]
c.d = [
  # [c]
  1,
  "]",
]
[[arr]]
v = 1
[[arr]]
v = 2
[arr.sub]
w = 3
'''
    assert lines_of(text) == {
        "top": 2, "a": 4, "a.x": 5, "a.y": 9, "a.y.p": 9, "a.y.q": 9, "a.y.q.0": 9, "a.y.q.1": 9,
        "a.quoted key": 10, "a.b": 11, "a.b.c": 12, "a.b.c.d": 12, "a.b.c.d.0": 14,
        "a.b.c.d.1": 15, "arr": 17, "arr.0": 17, "arr.0.v": 18, "arr.1": 19, "arr.1.v": 20,
        "arr.1.sub": 21, "arr.1.sub.w": 22,
    }  # fmt: skip


VALUES = st.sampled_from(
    ["1", '"a"', "'''\n[x]\n'''", '"""\\\n  a = 1\n"""', "[\n1,\n# ]\n2]", "{ a = 1, b = [2] }"]
)
STATEMENTS = st.lists(st.tuples(st.integers(0, 2), VALUES), max_size=6)


@given(st.lists(st.tuples(st.sampled_from(["", "# c\n"]), STATEMENTS), max_size=5))
def test_no_value_of_any_valid_file_is_without_a_line(
    tables: list[tuple[str, list[tuple[int, str]]]],
) -> None:
    text = ""
    expected = {}
    for number, (comment, statements) in enumerate(tables):
        text += f"{comment}[t{number}]\n"
        expected[f"t{number}"] = text.count("\n")
        for index, (blank, value) in enumerate(statements):
            text += "\n" * blank
            expected[f"t{number}.k{index}"] = text.count("\n") + 1
            text += f"k{index} = {value}\n"
    found = lines_of(text)
    assert all(line > 0 for line in found.values())
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a]\nx = 1\ny = hello\n", "x.toml:3: column 5: not valid TOML: invalid value; text"),
        ("x = 1\nx = 2\n", "x.toml:2: column 6: not valid TOML: cannot overwrite a value; the key"),
        ('x = "abc\n', "x.toml:1: column 9: not valid TOML: illegal character"),
        ("[a\n", "x.toml:1: column 3: not valid TOML: expected ']'"),
        ('x = """abc\n', "x.toml:2: column 1: not valid TOML: unterminated string"),
        ("x =", "x.toml:1: column 4: not valid TOML: invalid value"),
    ],
)  # fmt: skip
def test_bad_toml_is_told_with_line_and_column(text: str, says: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(text)
    with pytest.raises(SettingsError) as caught:
        SettingsFile(Path("x.toml"), text, 0o600)
    assert str(caught.value).startswith(says)


def test_a_syntax_error_does_not_show_the_line_which_may_hold_a_secret() -> None:
    with pytest.raises(SettingsError) as caught:
        SettingsFile(Path("x.toml"), 'password = hunter2"\n', 0o600)
    assert "hunter2" not in str(caught.value)


def test_nesting_without_end_is_a_mistake_not_a_crash() -> None:
    with pytest.raises(SettingsError, match="nested too deep"):
        SettingsFile(Path("x.toml"), f"x = {'[' * 5000}{']' * 5000}", 0o600)


def test_files_that_cannot_be_settings(tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    with pytest.raises(SettingsError, match="No such file"):
        read(config)
    config.write_bytes(b"[a]\nx = '\xff'\n")
    with pytest.raises(SettingsError, match=r"x\.toml:2: is not UTF-8"):
        read(config)
    config.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(SettingsError, match="more than"):
        read(config)
    with pytest.raises(SettingsError, match="not a regular file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="not a regular file"):
        read(tmp_path / "pipe")


def test_editors_of_other_systems(tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_bytes(b"\xef\xbb\xbf[a]\r\nx = 1\r\n")
    file = read(config)
    assert file.values == {"a": {"x": 1}}
    assert file.line_of(("a", "x")) == 2


def test_the_file_is_searched_in_the_documented_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home, xdg = tmp_path / "home", tmp_path / "xdg"
    environ = {"HOME": str(home), "XDG_CONFIG_HOME": str(xdg)}
    system = Path("/etc/backupgw/backupgw.toml")
    assert find(None, environ) == (system if system.exists() else None)
    for folder in (home / ".config", xdg):
        (folder / "backupgw").mkdir(parents=True)
        (folder / "backupgw" / "backupgw.toml").touch()
    assert find(None, {"HOME": str(home)}) == home / ".config/backupgw/backupgw.toml"
    assert find(None, environ) == xdg / "backupgw/backupgw.toml"
    Path("backupgw.toml").symlink_to("nowhere")
    assert find(None, environ) == Path("backupgw.toml"), "what is broken is told, not passed over"
    environ["BACKUPGW_CONFIG"] = "/not/there.toml"
    assert find(None, environ) == Path("/not/there.toml")
    assert find(Path("given.toml"), environ) == Path("given.toml")
