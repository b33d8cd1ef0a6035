"""Ignore rules mean what they mean to git, and restic leaves out just that."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers import peers
from tests.servers.restic import Restic

from backupgw.wingsadapter.ignore import MAX_BYTES, IgnoreError, IgnoreRules, read_rules
from backupgw.wingsadapter.restic_excludes import excludes

SEED = 20261127
NAMES = ["a", "b", "ab", "a.b", "ba", "log", "a*b", "[a]", "é", "!a", "#a", " a", "a ", "a\\b"]
NAMES += ["a$b", "a?", "-", "$HOME", "${HOME}", "a\nb", "a\r", "A", "~", "{a,b}", "a\t"]
NAMES += ["a\u00a0", "\x85", "a\\"]
PIECES = ["a", "b", "ab", "*", "*", "?", "[ab]", "[!a]", "[^b]", "[a-c]", "[[:alpha:]]", "[]a]"]
PIECES += ["log", ".", "\\*", "\\a", " ", "\\ ", "$", "é", "[", "]", "\\", "#", "!", "**", "[a"]
PIECES += ["$HOME", "-", "[[:none:]]", "[b-a]", "[a/b]", "\\[", "~", "{a,b}", "${HOME}"]


def draw_tree(draws: random.Random, root: Path) -> None:
    folders = [root]
    for _ in range(draws.randrange(4, 30)):
        parent = draws.choice(folders)
        path = parent / draws.choice(NAMES)
        if os.path.lexists(path):
            continue
        kind = draws.random()
        if kind < 0.45:
            path.mkdir()
            folders.append(path)
        elif kind < 0.55:
            path.symlink_to(draws.choice([".", "/", "nowhere"]))
        else:
            path.write_text("x")


def draw_line(draws: random.Random) -> str:
    names = []
    for _ in range(draws.choice([1, 1, 1, 2, 2, 3])):
        if draws.random() < 0.2:
            names.append("**")
        else:
            parts = draws.choices(PIECES, k=draws.choice([1, 1, 2, 3]))
            names.append("".join(parts))
    line = "/".join(names)
    if draws.random() < 0.25:
        line = "/" + line
    if draws.random() < 0.25:
        line += "/"
    if draws.random() < 0.25:
        line = "!" + line
    if draws.random() < 0.1:
        line += draws.choice([" ", "  ", "\r", "\\ ", "\\"])
    return line


def by_the_manual(line: str) -> bool:
    """Whether git keeps to its manual: it takes `a**/b` for `a` and then `**/b`."""
    return not any("**" in name and name.strip("*") for name in line.lstrip("!").split("/"))


def draw_rules(draws: random.Random) -> str:
    lines = [draw_line(draws) for _ in range(draws.choice([1, 1, 2, 3, 5, 8]))]
    return "\n".join(filter(by_the_manual, lines)) + "\n"


def entries(root: Path) -> Iterator[tuple[str, bool]]:
    """All that lies below, folders before what is in them, with whether it is a folder."""
    for path in sorted(root.rglob("*")):
        yield str(path.relative_to(root)), path.is_dir() and not path.is_symlink()


def left_out(rules: IgnoreRules, root: Path) -> set[str]:
    found: set[str] = set()
    for path, folder in entries(root):
        above = os.path.dirname(path)
        if above in found or rules.leaves_out(os.fsencode(path).split(b"/"), folder=folder):
            found.add(path)
    return found


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Trees with rules, drawn at random."""
    draws = random.Random(SEED)
    base = tmp_path_factory.mktemp("trees")
    made = {}
    for number in range(400):
        name = f"case{number}"
        root = base / name
        root.mkdir()
        draw_tree(draws, root)
        made[name] = (root, draw_rules(draws))
    return made


def test_the_meaning_is_gits(cases: dict[str, tuple[Path, str]]) -> None:
    base = next(iter(cases.values()))[0].parent
    git = [shutil.which("git") or "git", "-c", "core.ignoreCase=false", "-C", str(base)]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run([*git, "init", "-q"], check=True, env=environment)
    asked = []
    for root, rules in cases.values():
        (root / ".gitignore").write_text(rules, newline="")
        asked += [f"{root.name}/{path}" for path, _ in entries(root) if path != ".gitignore"]
    done = subprocess.run(
        [*git, "check-ignore", "--no-index", "-z", "--stdin"],
        input=b"\0".join(map(os.fsencode, asked)),
        capture_output=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    ignored: dict[str, set[str]] = {name: set() for name in cases}
    for each in done.stdout.decode().split("\0")[:-1]:
        name, _, path = each.partition("/")
        ignored[name].add(path)
    shutil.rmtree(base / ".git")
    for name, (root, rules) in cases.items():
        (root / ".gitignore").unlink()
        assert left_out(IgnoreRules.parse(rules), root) == ignored[name], (rules, name)
    assert sum(map(len, ignored.values())) > 300  # the drawn lines are not all about nothing


@pytest.mark.peers("restic-old", "restic-new")
@pytest.mark.parametrize("version", [peers.RESTIC_OLD, peers.RESTIC_NEW])
def test_restic_leaves_out_just_that(
    cases: dict[str, tuple[Path, str]], version: str, tmp_path: Path
) -> None:
    restic = Restic(peers.get(version), str(tmp_path / "repo"), tmp_path / "home")
    restic.init(tmp_path / "repo")
    lines: list[bytes] = []
    expected: set[str] = set()
    for root, rules in cases.values():
        parsed = IgnoreRules.parse(rules)
        lines += translated(parsed, root)
        out = left_out(parsed, root)
        expected |= {f"{root}/{path}" for path, _ in entries(root) if path not in out}
    file = tmp_path / "excludes"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    roots = [root for root, _ in cases.values()]
    restic.run("backup", "--exclude-file", file, "--", *roots)
    listed = restic.run("ls", "--json", "latest").stdout.split("\n")[1:-1]
    found = {json.loads(line)["path"] for line in listed}
    below = {path for path in found if path.count("/") > str(roots[0]).count("/")}
    assert below - expected == set()
    assert expected - below == set()


def translated(rules: IgnoreRules, root: Path) -> list[bytes]:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        return list(excludes(rules, descriptor, os.fsencode(root)).lines)
    finally:
        os.close(descriptor)


HOSTILE = [
    "[$RESTIC_PASSWORD",
    "$RESTIC_PASSWORD",
    "${RESTIC_PASSWORD}",
    "[a-$RESTIC_PASSWORD]",
    "a\n--password-command=id\n",
    "--files-from=/etc/passwd",
    "[",
    "[]",
    "[a-",
    "a\\",
    "!",
    "!!",
    "/",
    "//",
    "/..",
    "../../*",
    "/../*/data",
    "\ufeff[",
    "a" * 9000,
    "*a" * 4000,
    "[" * 9000,
    "**/" * 3000 + "x",
    "[[:x:]]",
    "\x01\x02",
    "volumes",
    "/volumes",
    "# x",
]


@pytest.mark.peers("restic-old", "restic-new")
@pytest.mark.parametrize("version", [peers.RESTIC_OLD, peers.RESTIC_NEW])
def test_hostile_lines_end_no_backup_and_show_nothing(version: str, tmp_path: Path) -> None:
    restic = Restic(
        peers.get(version), str(tmp_path / "repo"), tmp_path / "home", password="hunter2secret"
    )
    restic.init(tmp_path / "repo")
    lines: list[bytes] = []
    for number, hostile in enumerate(HOSTILE):
        root = tmp_path / "volumes" / f"server{number}"
        root.mkdir(parents=True)
        (root / "kept").write_text("x")
        (root / "hunter2secret").write_text("x")
        lines += translated(IgnoreRules.parse(hostile), root)
    file = tmp_path / "excludes"
    file.write_bytes(b"\n".join([*lines, b""]))
    assert b"hunter2" not in file.read_bytes()
    roots = sorted((tmp_path / "volumes").iterdir())
    done = restic.run("backup", "--dry-run", "-vv", "--exclude-file", file, "--", *roots)
    for root in roots:
        assert f"{root}/kept" in done.stdout
        assert f"{root}/hunter2secret" in done.stdout


def test_lines_of_many_stars_cost_nothing(tmp_path: Path) -> None:
    """A line that backtracking would try for years is decided at once."""
    name = b"a" * 255
    lines = ["*a" * 120 + "b", "?" * 100 + "*" + "[a]*" * 100 + "b", "**/a/" * 500 + "b"]
    rules = IgnoreRules.parse("\n".join(lines))
    before = time.process_time()
    assert not rules.leaves_out([name] * 16, folder=False)
    assert not rules.leaves_out([b"a"] * 1000, folder=False)
    assert time.process_time() - before < 5


def test_many_files_in_one_folder_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for number in range(50):
        (tmp_path / "logs" / f"{number}").write_text("x")
    (tmp_path / "server.cfg").write_text("x")
    lines = translated(IgnoreRules.parse("*\n!*/\n!*.cfg"), tmp_path)
    assert lines == [os.fsencode(tmp_path / "logs") + b"/*"]


def test_rules_come_from_the_servers_root(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not read_rules(root)
        (tmp_path / ".pteroignore").write_text("old")
        assert read_rules(root).leaves_out([b"old"], folder=False)
        (tmp_path / ".pelicanignore").write_text("new")
        assert read_rules(root).leaves_out([b"new"], folder=False)
        (tmp_path / ".pelicanignore").write_bytes(b"x" * (MAX_BYTES + 1))
        assert not read_rules(root)
        (tmp_path / ".pelicanignore").unlink()
        secret = tmp_path / "secret"
        secret.write_text("secret")
        (tmp_path / ".pelicanignore").symlink_to(secret)
        assert not read_rules(root)
        (tmp_path / ".pelicanignore").unlink()
        os.mkfifo(tmp_path / ".pelicanignore")
        assert not read_rules(root)
    finally:
        os.close(root)


def test_too_many_rules_and_zero_bytes_are_refused() -> None:
    for text in ("x" * (MAX_BYTES + 1), "a\0b"):
        with pytest.raises(IgnoreError):
            IgnoreRules.parse(text)
