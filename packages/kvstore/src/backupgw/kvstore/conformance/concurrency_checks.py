"""Many threads and processes at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from ..backends.base import Backend, Writer
from ..backends.errors import ObjectExists, ObjectNotFound
from ..layers.retry_reader import ReplacedMeanwhile
from . import values
from .processes import Job, Meet, need_processes, run_jobs
from .subject import Ground
from .suite import check
from .threads import run_together
from .verdicts import require

THREADS = 8
PROCESSES = 3
_AT_ONCE = 25


@check("atomic_create")
def one_thread_creates(at: Ground) -> str:
    """Of many threads with if_absent for one name exactly one commits, and its value stays."""
    rounds = at.subject.count(short=25, soak=200)
    for number in range(rounds):
        name = at.name(f"item{number}")
        calls = [_prepared_create(at.backend, name, seed) for seed in range(THREADS)]
        wins = run_together(calls, at.subject.patience)
        _one_winner(at, name, wins)
    return f"{rounds} rounds of {THREADS} threads"


def _prepared_create(backend: Backend, name: str, seed: int) -> Callable[[], bool]:
    writer = backend.open_writer(name, if_absent=True)
    writer.write(values.make(seed, 1000))
    return partial(_commits, writer)


def _one_winner(at: Ground, name: str, wins: list[bool]) -> None:
    require(wins.count(True) == 1, f"{wins.count(True)} of {len(wins)} writers created one item")
    value = at.backend.load(name)
    require(
        value == values.make(wins.index(True), 1000), "another value than the winner's is there"
    )


@check("atomic_create")
def one_process_creates(at: Ground) -> str:
    """Of many processes with if_absent for one name exactly one commits, and its value stays."""
    need_processes(at.subject)
    count = at.subject.count(short=100, soak=500)
    names = [at.name(f"item{number}") for number in range(count)]
    jobs: list[Job] = [(_create_all, (names, seed)) for seed in range(PROCESSES)]
    answers = run_jobs(at.subject, jobs)
    for number, name in enumerate(names):
        _one_winner(at, name, [answer[number] for answer in answers])
    won = [sum(answer) for answer in answers]
    return f"{count} names, won by {' / '.join(map(str, won))}"


def _create_all(backend: Backend, meet: Meet, names: list[str], seed: int) -> list[bool]:
    won = []
    for start in range(0, len(names), _AT_ONCE):
        batch = [_begin(backend, name) for name in names[start : start + _AT_ONCE]]
        meet()  # every process has opened its writers before the first of them commits
        for writer in batch:
            if writer is not None:
                writer.write(values.make(seed, 1000))
            won.append(writer is not None and _commits(writer))
    return won


def _begin(backend: Backend, name: str) -> Writer | None:
    try:
        return backend.open_writer(name, if_absent=True)
    except ObjectExists:
        return None


def _commits(writer: Writer) -> bool:
    try:
        writer.commit()
    except ObjectExists:
        writer.abort()
        return False
    return True


@check("concurrent")
def threads_see_no_torn_value(at: Ground) -> str:
    """Threads that write, read, replace, move, delete and list the same names see whole values."""
    steps = at.subject.count(short=150, soak=2000)
    calls = [partial(_turmoil, at.backend, at.folder, seed, steps) for seed in range(THREADS)]
    reads = sum(run_together(calls, at.subject.patience))
    return f"{THREADS * steps} operations, {reads} values read"


@check("concurrent")
def processes_see_no_torn_value(at: Ground) -> str:
    """The same with processes."""
    need_processes(at.subject)
    steps = at.subject.count(short=200, soak=2000)
    jobs: list[Job] = [(_turmoil_in_process, (at.folder, seed, steps)) for seed in range(PROCESSES)]
    reads = sum(run_jobs(at.subject, jobs))
    return f"{PROCESSES * steps} operations, {reads} values read"


def _turmoil_in_process(backend: Backend, meet: Meet, folder: str, seed: int, steps: int) -> int:
    meet()
    return _turmoil(backend, folder, seed, steps)


def _turmoil(backend: Backend, folder: str, seed: int, steps: int) -> int:
    """Do random things with five names; return how many values were read. Raises on a torn one."""
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    names = [f"{folder}/{name}" for name in ("a", "b", "sub/c", "sub/d", "sub/e")]
    reads = 0
    for step in range(steps):
        name = dice.choice(names)
        action = dice.choice(("store", "store", "load", "load", "load", "delete", "move", "list"))
        try:
            if action == "store":
                size = dice.choice((16, 1000, 70_000, 300_000))
                value = values.make(seed * 1_000_000 + step, size)
                with backend.open_writer(name) as writer:
                    for start in range(0, size, values.PIECE):
                        writer.write(value[start : start + values.PIECE])
            elif action == "load":
                with backend.open_reader(name) as reader:
                    value = b"".join(iter(partial(reader.read, values.PIECE), b""))
                require(values.is_whole(value), f"{name}: a torn value of {len(value)} bytes")
                reads += 1
            elif action == "delete":
                backend.delete(name)
            elif action == "move":
                backend.move(name, dice.choice(names))
            else:
                listed = {f"{folder}/{info.name}" for info in backend.list(folder)}
                require(listed <= {*names[:2], f"{folder}/sub"}, f"strange entries: {listed}")
        except ObjectNotFound:
            continue  # another one was faster
        except ReplacedMeanwhile:
            continue  # a place may not keep what is being read: then it has to say so
    return reads


@check("concurrent")
def unrelated_operations_overlap(at: Ground) -> None:
    """While a writer, a reader and a list are half-way in one thread, others are not held up."""
    for number in range(3):
        at.put(f"busy/{number}", values.make(number, 3 << 20))
    writer = at.backend.open_writer(at.name("busy/new"))
    writer.write(b"half")
    reader = at.backend.open_reader(at.name("busy/0"))
    reader.read(10)
    entries = at.backend.list(at.name("busy"))
    next(entries)
    try:
        run_together(
            [partial(_everything, at, f"other{number}") for number in range(4)],
            at.subject.patience,
        )
    finally:
        writer.abort()
        reader.close()
    require(len([*entries]) == 2, "the half-way list lost entries")


def _everything(at: Ground, folder: str) -> None:
    at.put(f"{folder}/item", b"value")
    at.backend.move(at.name(f"{folder}/item"), at.name(f"{folder}/moved"))
    require(at.get(f"{folder}/moved") == b"value", "another thread's value was lost")
    require(at.names(folder) == ["moved"], "another thread's list is wrong")
    at.backend.delete(at.name(f"{folder}/moved"))


@check("move")
def one_mover_wins(at: Ground) -> None:
    """Of many threads that move one item away exactly one succeeds, and the value is there once."""
    for number in range(25):
        source = at.put(f"{number}/source", values.make(number, 1000))
        calls = [
            partial(_moved, at.backend, source, at.name(f"{number}/target{seed}"))
            for seed in range(4)
        ]
        wins = run_together(calls, at.subject.patience)
        require(wins.count(True) == 1, f"{wins.count(True)} threads moved one item")
        left = at.names(str(number))
        require(left == [f"target{wins.index(True)}"], f"after the moves there is {left}")


def _moved(backend: Backend, source: str, target: str) -> bool:
    try:
        backend.move(source, target)
    except ObjectNotFound:
        return False
    return True
