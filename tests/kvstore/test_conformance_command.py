"""`python -m backupgw.kvstore.conformance URL`, as an operator or a backend's author runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from backupgw.kvstore.conformance import checks


def conformance(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backupgw.kvstore.conformance", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_the_whole_suite_on_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    done = conformance(f"file://{tmp_path}/place", "--option", "durability=fast", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["ok"]
    names = [result["check"] for result in report["results"]]
    assert names == [check.name for check in checks] + ["cleanup"]
    assert {result["status"] for result in report["results"]} == {"ok"}
    assert [*tmp_path.glob("place/*")] == []


def test_the_table_says_what_was_not_offered_and_why(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = conformance(f"file://{tmp_path}", "--only", "quarantine")
    assert done.returncode == 0, done.stdout
    assert "quarantine_sets_aside" in done.stdout
    assert "not offered" in done.stdout
    assert "needs a place of its own" in done.stdout
    assert done.stdout.endswith("2 ok, 0 failed, 1 not offered\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_broken_promise_is_exit_code_1(tmp_path: Path) -> None:
    package = tmp_path / "hasty_place-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: hasty-place\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[backupgw.backends]\nhasty = hasty_place:from_url\n")
    (tmp_path / "hasty_place.py").write_text(
        "from backupgw.kvstore.backends.memory import Memory\n"
        "class Hasty(Memory):\n"
        "    def destroy(self):\n"
        "        raise OSError('not today')\n"
        "    def delete(self, name):\n"
        "        self.info(name)\n"
        "def from_url(url):\n"
        "    return Hasty()\n"
    )
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from backupgw.kvstore.conformance.__main__ import main\n"
        "sys.exit(main(['hasty:', '--only', 'operations']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 1
    table = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert " failed " in table["operations.delete_deletes"]
    assert " ok " in table["operations.hash_is_right"]
    assert "OSError: not today" in table["cleanup"]


def test_mistakes_are_exit_code_2() -> None:
    for arguments in (
        ["nosuch://me:hush@host/"],
        ["memory:", "--option", "colour=red"],
        ["memory:", "--option", "colour"],
        ["memory:", "--only", "no such check"],
    ):
        done = conformance(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr
        assert "hush" not in done.stderr
        assert "Traceback" not in done.stderr


def test_a_stack_of_layers_is_checked_as_it_would_run(tmp_path: Path) -> None:
    done = conformance(
        *(f"file://{tmp_path}/place", "--option", "durability=fast", "--only", "operations"),
        *("--layer", "observe", "--layer", '{"layer": "prefix", "folder": "a/b"}', "--json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ok"]
    done = conformance(f"file://{tmp_path}/other", "--layer", "readonly", "--only", "operations")
    assert done.returncode == 1
    assert "read-only" in done.stderr + done.stdout
    for wrong, says in (
        ("retyr", "did you mean 'retry'?"),
        ('{"layer": "retry", "attempts": 0}', "layer retry: attempts: must be"),
        ('{"layer": ', "not JSON"),
    ):
        done = conformance(f"file://{tmp_path}/other", "--layer", wrong)
        assert done.returncode == 2
        assert says in done.stderr
