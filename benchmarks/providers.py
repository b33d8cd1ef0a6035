"""`backupgw provider` beside rclone: one large file and many small ones, there and back.

`python -m benchmarks.providers --help`. Both reach the same server, in turn, with their default
settings and a process of their own for each step; with `--encrypted` ours encrypts, and rclone has
a `crypt` remote. How to read what it prints: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.servers import peers as test_peers
from tests.servers.s3 import RcloneS3
from tests.servers.sshd import Sshd

from benchmarks import peers, report
from benchmarks.peers import MissingPeer

ROOT = Path(__file__).resolve().parent.parent
PASSPHRASE = "benchmark"
WAYS = ("rclone", "backupgw")


@dataclass(frozen=True)
class Sample:
    """One step of one program: seconds on the clock, and CPU seconds of that program."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Server:
    """Where both go: rclone's remote, and ours as fields of a provider.

    Attributes:
        settle: returns once the server has done what it put off when it was given a large file,
            by the prefix of its key.
    """

    kind: str
    remote: str
    fields: dict[str, str]
    settle: Callable[[str], None] = lambda _: None


@contextmanager
def s3(folder: Path) -> Iterator[Server]:
    """Yield an S3 server: rclone's, on a folder."""
    with RcloneS3(folder / "s3") as server:
        (folder / "s3" / "bench").mkdir(parents=True)
        lines = (
            f"type = s3\nprovider = Other\nendpoint = {server.endpoint}\n"
            f"access_key_id = {server.key_id}\nsecret_access_key = {server.secret}\n"
        )
        fields = {
            "endpoint": server.endpoint,
            "access_key": server.key_id,
            "secret_key": server.secret,
        }

        client = server.client()

        def settle(prefix: str) -> None:
            # This server hashes an object in parts when first asked for its ETag: others have it
            # when they have the parts.
            client.list_objects_v2(Bucket="bench", Prefix=prefix, MaxKeys=10)

        yield Server("aws_s3", lines, fields, settle)


@contextmanager
def sftp(folder: Path) -> Iterator[Server]:
    """Yield an SFTP server: OpenSSH's."""
    with Sshd(folder / "sshd") as sshd:
        (folder / "there").mkdir()
        config = folder / "ssh_config"
        config.write_text(sshd.config("box", host_key="host"))
        key = next(
            line.split()[1] for line in config.read_text().splitlines() if "IdentityFile" in line
        )
        lines = (
            f"type = sftp\nhost = 127.0.0.1\nport = {sshd.port}\nuser = {sshd.user}\n"
            f"key_file = {key}\nshell_type = none\n"
        )
        yield Server("sftp", lines, {"host": "box", "ssh_config": str(config)})


SERVERS = {"s3": s3, "sftp": sftp}


class Bench:
    """Both programs on one server, with files to move."""

    def __init__(self, folder: Path, server: Server, *, encrypted: bool) -> None:
        self.folder = folder
        self._written = 0
        """Bytes of the files that the next step moves."""
        self._server = server
        self._encrypted = encrypted
        self._where = "bench" if server.kind == "aws_s3" else str(folder / "there")
        self._rclone = peers.find("rclone")
        self._config = folder / "rclone.conf"
        self._settings = folder / "gw.toml"
        self._settings.write_text(f'[state]\nfolder = "{folder}/state"\n')
        text = f"[there]\n{server.remote}"
        if encrypted:
            done = subprocess.run(
                [self._rclone, "obscure", PASSPHRASE], capture_output=True, text=True, check=True
            )
            text += (
                f"[sealed]\ntype = crypt\nremote = there:{self._where}/sealed\n"
                f"password = {done.stdout.strip()}\n"
            )
        self._config.write_text(text)
        self._begin()

    def _begin(self) -> None:
        container = self._where
        fields = {**self._server.fields, "container": container, "folder": "ours"}
        if self._encrypted:
            fields |= {
                "folder": "ours-sealed",
                "encryption_enabled": "true",
                "encryption_key": PASSPHRASE,
            }
        name = self._server.kind
        self._run(*self._ours("enable", name, *[f"--set={k}={v}" for k, v in fields.items()]))
        self._run(*self._ours("test", name))

    def _ours(self, verb: str, *words: str) -> list[str]:
        program = str(Path(sys.executable).parent / "backupgw")
        return [program, "provider", verb, *words, "--config", str(self._settings)]

    def _theirs(self, source: str, target: str) -> list[str]:
        return [self._rclone, "--config", str(self._config), "copy", source, target]

    def _remote(self, name: str) -> str:
        return f"sealed:{name}" if self._encrypted else f"there:{self._where}/theirs/{name}"

    def _run(self, *command: str) -> Sample:
        os.sync()  # what the step before left to be written is none of this one's
        self._free_memory()
        before, begun = os.times(), time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall, after = time.monotonic() - begun, os.times()
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        spent = after.children_user + after.children_system
        return Sample(wall, spent - before.children_user - before.children_system)

    def _free_memory(self) -> None:
        """Have the kernel ready for what a step writes. Finding free pages for gigabytes, where
        files fill the memory, took whoever came first three seconds of processor time, and left
        the pages to the other program."""
        path = self.folder / "memory"
        with open(path, "wb") as file:
            file.writelines(bytes(1 << 20) for _ in range(self._written >> 20))
        path.unlink()

    def _settled(self, name: str, taken: Sample) -> Sample:
        """Return an upload of ours with what the server still had to do for it. rclone waits for
        that at the end of an upload, when it asks for what it uploaded; ours would wait for it at
        the beginning of a download, and look slower there and faster here than it is."""
        begun = time.monotonic()
        self._server.settle(f"{'ours-sealed' if self._encrypted else 'ours'}/{name}/")
        return Sample(taken.wall + time.monotonic() - begun, taken.cpu)

    def step(self, way: str, what: str, source: Path, number: int) -> Sample:
        """Do one step: "upload" or "download" of a folder, which may hold one file."""
        name = f"{source.name}-{number}"
        back = self.folder / f"back-{way}"
        kind = self._server.kind
        self._written = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
        if what == "upload":
            if way == "rclone":
                return self._run(*self._theirs(str(source), self._remote(name)))
            return self._settled(name, self._run(*self._ours("sync", kind, str(source), name)))
        shutil.rmtree(back, ignore_errors=True)
        if way == "rclone":
            taken = self._run(*self._theirs(self._remote(name), str(back)))
        else:
            taken = self._run(*self._ours("download", kind, name, str(back), "--recursive"))
        _same(source, back)
        shutil.rmtree(back)
        return taken


def _same(one: Path, other: Path) -> None:
    """See that everything came back. Raises RuntimeError."""
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    found = sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    if names != found:
        raise RuntimeError(f"{len(found)} of {len(names)} files came back")
    for name in (*names[:5], *names[-5:]):
        if (one / name).read_bytes() != (other / name).read_bytes():
            raise RuntimeError(f"{name} came back as something else")


def make(folder: Path, count: int, size: int) -> Path:
    """Make `count` files of `size` bytes, 500 in a folder."""
    piece = secrets.token_bytes(1 << 20)
    for number in range(count):
        path = folder / f"{number // 500:02}" / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            left = size
            file.write(number.to_bytes(8, "big")[: min(8, size)])
            left -= min(8, size)
            while left > 0:
                file.write(piece[: min(left, len(piece))])
                left -= len(piece)
    return folder


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.providers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=2000, help="of the large file")
    parser.add_argument("--files", type=int, default=5000, help="small files, of 20 kB each")
    parser.add_argument("--server", action="append", choices=sorted(SERVERS), help="default: all")
    parser.add_argument("--encrypted", action="store_true", help="beside rclone's crypt")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample")
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary folder)")
    return parser.parse_args(argv)


def measure(
    given: argparse.Namespace, folder: Path, name: str
) -> dict[str, dict[str, list[Sample]]]:
    """Measure on one server; return the samples by step and program."""
    found: dict[str, dict[str, list[Sample]]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(SERVERS[name](folder))
        bench = Bench(folder, server, encrypted=given.encrypted)
        sources: list[Path] = []
        if given.megabytes:
            sources.append(make(folder / "large", 1, given.megabytes * 1_000_000))
        if given.files:
            sources.append(make(folder / "small", given.files, 20_000))
        for number in range(given.rounds):
            for source in sources:
                for what in ("upload", "download"):
                    # In turn first, so that neither always meets the warmer server.
                    for way in WAYS if number % 2 else reversed(WAYS):
                        taken = bench.step(way, what, source, number)
                        step = f"{what} {source.name}"
                        found.setdefault(step, {}).setdefault(way, []).append(taken)
    return found


def show(given: argparse.Namespace, name: str, found: dict[str, dict[str, list[Sample]]]) -> None:
    """Print what was measured on one server."""
    print(f"\n{name}{', encrypted' if given.encrypted else ''}")
    for step, samples in found.items():
        size = given.megabytes * 1e6 if step.endswith("large") else given.files * 20_000
        print(f"  {step}")
        for way, taken in samples.items():
            ratios = [
                theirs.wall / ours.wall
                for ours, theirs in zip(taken, samples["rclone"], strict=True)
            ]
            rate = median(size / 1e6 / each.wall for each in taken)
            cpu = median(each.cpu for each in taken)
            print(
                f"    {way:9} {report.spread([each.wall for each in taken], 2)} s  "
                f"{rate:8.1f} MB/s  {cpu:6.2f} s CPU  {report.spread(ratios, 2)} x rclone"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run it and print what came out."""
    given = arguments(argv)
    try:
        program = peers.find("rclone")
    except MissingPeer as error:
        print(error, file=sys.stderr)
        return 2
    os.chdir(test_peers.ROOT)
    print(f"{peers.version_of(program, 'version')}, {given.rounds} rounds")
    results: dict[str, dict[str, dict[str, list[dict[str, float]]]]] = {}
    for name in given.server or sorted(SERVERS):
        with tempfile.TemporaryDirectory(prefix="bench-", dir=given.dir) as folder:
            if not results:
                print(report.machine(Path(folder)))
            found = measure(given, Path(folder), name)
        show(given, name, found)
        results[name] = {
            step: {way: [asdict(each) for each in taken] for way, taken in samples.items()}
            for step, samples in found.items()
        }
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
