"""Patterns mean what they mean to restic, and a policy keeps what its rules say."""

from __future__ import annotations

import json
import random
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupgw.providers.backup.patterns import BadPattern, Patterns
from backupgw.providers.backup.retention import ALL, Keep, decide
from tests.servers import peers
from tests.servers.restic_key import make_cheap

SEGMENTS = ("a", "b", "ab", "a.txt", "b.tmp", "c d", "[x]", "a*b", "é")
PARTS = (
    *SEGMENTS,
    "*",
    "**",
    "?",
    "*.txt",
    "[ab]",
    "[^a]",
    "a*",
    "\\[x\\]",
    "a\\*b",
    "[a-c]*",
    "é",
)


def patterns_by_chance(source: random.Random, root: str) -> list[str]:
    found = []
    for _ in range(source.randint(1, 3)):
        body = "/".join(source.choice(PARTS) for _ in range(source.randint(1, 3)))
        style = source.randrange(6)
        text = f"{root}/{body}" if style == 0 else f"/{body}" if style == 1 else body
        found.append(f"!{text}" if source.randrange(5) == 0 else text)
    return found


@pytest.mark.peers(peers.RESTIC_NEW)
def test_patterns_are_restics(tmp_path: Path) -> None:
    """What restic leaves out of a backup we leave out, for patterns made by chance."""
    source = random.Random(7)
    root = tmp_path / "root"
    for _ in range(60):
        path = root.joinpath(*(source.choice(SEGMENTS) for _ in range(source.randint(1, 4))))
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    everything = sorted(str(path) for path in root.rglob("*"))
    program = str(peers.get(peers.RESTIC_NEW).path)
    environment = {
        "RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(tmp_path / "repository"),
        "HOME": str(tmp_path), "PATH": "/usr/bin",
    }  # fmt: skip
    subprocess.run([program, "init", "--quiet"], env=environment, check=True)
    make_cheap(tmp_path / "repository", "x")
    different = 0
    for _ in range(25):
        texts = patterns_by_chance(source, str(root))
        flags = [f"--exclude={text}" for text in texts]
        done = subprocess.run(
            [program, "backup", "--dry-run", "-vv", "--json", "--no-cache", *flags, str(root)],
            env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        theirs = set()
        for line in done.stdout.splitlines():
            message = json.loads(line)
            if message["message_type"] == "verbose_status" and message.get("item"):
                theirs.add(message["item"].rstrip("/"))
        patterns = Patterns(texts)
        ours = set()
        gone: list[str] = []
        for name in everything:
            if any(name.startswith(f"{each}/") for each in gone):
                continue
            if patterns.match(name):
                gone.append(name)
            else:
                ours.add(name)
        theirs = {name for name in theirs if name.startswith(f"{root}/")}
        assert ours == theirs, texts
        different += ours != set(everything)
    assert different > 8, "the patterns leave something out often enough to show anything"


@pytest.mark.parametrize("text", ["a\\", "[", "[a", "[]", "[b-a]", "[-a]", "!"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(BadPattern):
        Patterns([text])


def test_a_policy_keeps_the_oldest_while_a_rule_has_counts_left() -> None:
    times = [datetime(2026, 5, 1, 12, tzinfo=UTC) - timedelta(days=n) for n in range(40)]
    kept = [times[each.index] for each in decide(times, Keep(daily=3)) if each.kept]
    assert kept == times[:3]
    kept = [times[each.index] for each in decide(times, Keep(monthly=5)) if each.kept]
    assert [(t.month, t.day) for t in kept] == [(5, 1), (4, 30), (3, 31), (3, 23)]
    assert sum(each.kept for each in decide(times, Keep(last=ALL))) == 40
    with pytest.raises(ValueError, match="no backup at all"):
        decide(times, Keep())


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_policy_keeps_what_restic_keeps(tmp_path: Path) -> None:
    """The same rules on the same snapshots, asked of restic itself."""
    program = str(peers.get(peers.RESTIC_NEW).path)
    environment = {
        "RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(tmp_path / "repository"),
        "HOME": str(tmp_path), "PATH": "/usr/bin", "TZ": "Europe/Berlin",
    }  # fmt: skip

    def restic(*words: str) -> str:
        done = subprocess.run(
            [program, *words, "--json", "--no-cache"],
            env=environment, cwd=tmp_path, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout

    restic("init")
    make_cheap(tmp_path / "repository", "x")
    (tmp_path / "file").touch()
    choose = random.Random(3)
    for _ in range(16):
        year, month, day = choose.choice((2025, 2026)), choose.randint(1, 3), choose.randint(1, 28)
        clock = f"{choose.randrange(24):02}:{choose.randrange(60):02}:07"
        restic("backup", "--time", f"{year}-{month:02}-{day:02} {clock}", "file")
    snapshots = json.loads(restic("snapshots"))
    times = [datetime.fromisoformat(each["time"][:19] + each["time"][-6:]) for each in snapshots]
    different = set()
    for keep in (
        Keep(last=3), Keep(daily=4, weekly=3), Keep(monthly=2, yearly=5, hourly=1),
        Keep(yearly=ALL), Keep(weekly=100), Keep(hourly=2, monthly=4), Keep(daily=1),
    ):  # fmt: skip
        flags = [
            f"--keep-{name}={'unlimited' if count == ALL else count}"
            for name, count in keep.rules()
            if count
        ]
        [group] = json.loads(restic("forget", "--dry-run", *flags).splitlines()[0])
        ours = {snapshots[each.index]["id"] for each in decide(times, keep) if each.kept}
        assert ours == {each["id"] for each in group["keep"]}, keep
        different.add(len(ours))
    assert len(different) > 3
