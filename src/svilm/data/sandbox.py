"""Work on files that may crash, hang or eat the memory: done in processes that are bounded, and replaced when they die.

This bounds what a hostile file can cost.  It is no jail: the processes have the rights of their user, except that
they cannot write files.
"""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Literal, TypeVar

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows: there only the clock bounds a process
    resource = None

T = TypeVar("T")

RENEWED = 500  # tasks after which a fresh process takes over, so that nothing can pile up
START_SECONDS = 300.0  # to import what the work needs, on a machine that is busy
ANSWER_BYTES = 1 << 26
LONGEST_WAIT = 3600.0  # seconds; operating systems refuse to wait for weeks


@dataclass(frozen=True)
class Limits:
    """What one task may cost."""

    cpu_seconds: float
    """Processor time."""
    memory_mb: int
    """Memory beyond that of a process without a task; address space, so a bit more than what is used."""
    patience: float = 8.0
    """How many times the processor time may pass by the clock: other programs run as well."""


@dataclass(frozen=True)
class Death:
    """How a process ended that did not finish its task."""

    reason: Literal["crashed", "too_slow"]
    message: str


def each(
    work: Callable[[T], Any], tasks: Iterable[T], *, workers: int, limits: Callable[[T], Limits]
) -> Iterator[tuple[T, Any]]:
    """Each task with its result, or with the Death of its process, in the order in which they are done.

    ``work`` is a function at the top of a module.  Its results are plain data: they come as JSON, because what a
    process says after a hostile file must not be unpickled.  A task at which a process crashed that had done others
    before is tried again by a fresh one, so that no file is blamed for another.  Raises RuntimeError when ``work``
    raises or no process can be started.
    """
    waiting = iter(tasks)
    crew: list[_Worker[T]] = []
    try:
        while True:
            while len(crew) < max(1, workers) and (following := list(islice(waiting, 1))):
                crew.append(_Worker(work, following[0], limits))
            if not crew:
                return
            nearest = min(worker.deadline for worker in crew) - time.monotonic()
            wait([worker.pipe for worker in crew], timeout=min(max(nearest, 0.0), LONGEST_WAIT))
            for worker in list(crew):
                outcome = worker.outcome()
                if outcome is None:
                    continue
                task, death = worker.task, outcome if isinstance(outcome, Death) else None
                retry = death is not None and death.reason == "crashed" and worker.done > 0
                if retry:
                    waiting = chain([task], waiting)
                if death or worker.done >= RENEWED or not (following := list(islice(waiting, 1))):
                    crew.remove(worker)
                    worker.close()
                else:
                    worker.give(following[0])
                if not retry:
                    yield task, death or outcome["result"]
    finally:
        for worker in crew:
            worker.close()


class _Worker(Generic[T]):
    """A process with the task that it does; made with the first one."""

    def __init__(self, work: Callable[[T], Any], task: T, limits: Callable[[T], Limits]) -> None:
        context = get_context("spawn")  # a forked process may hang in a thread pool that it inherited
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.limits_of, self.done, self.ready = limits, 0, False
        self.task, self.limits = task, limits(task)
        self.deadline = time.monotonic() + START_SECONDS

    def give(self, task: T) -> None:
        """Hand over the next task."""
        self.task, self.limits = task, self.limits_of(task)
        self.deadline = time.monotonic() + self.limits.cpu_seconds * self.limits.patience
        with suppress(OSError):  # it is dead already: the pipe will say so
            self.pipe.send((task, self.limits))

    def outcome(self) -> Any:
        """What the process said, or its Death; None as long as the task is being done."""
        late = time.monotonic() > self.deadline
        try:
            if not self.pipe.poll():
                return self._overdue() if late else None
            answer: dict[str, Any] = json.loads(self.pipe.recv_bytes(ANSWER_BYTES))
        except (EOFError, OSError, ValueError):
            return self._death()
        if "error" in answer:
            raise RuntimeError(f"{self.task}: {answer['error']}")
        if not self.ready:
            self.ready = True
            self.give(self.task)
            return None
        self.done += 1
        return answer

    def close(self) -> None:
        """End the process.  It has nothing to lose."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()

    def _overdue(self) -> Death:
        if not self.ready:
            raise RuntimeError(f"a process did not start within {START_SECONDS:g} s")
        seconds = self.limits.cpu_seconds * self.limits.patience
        return Death("too_slow", f"not done within {seconds:g} s")

    def _death(self) -> Death:
        self.process.join(5)
        code = self.process.exitcode
        if not self.ready:
            raise RuntimeError(f"a process could not be started (exit code {code})")
        if code == -signal.SIGXCPU:
            return Death("too_slow", f"not done within {self.limits.cpu_seconds:g} s of processor time")
        how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
        return Death("crashed", f"the process that read it crashed ({how})")


def _serve(pipe: Connection, work: Callable[[T], Any]) -> None:
    """Do tasks until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gives the tasks
    base = _address_space()
    if resource is not None:
        _set(resource.RLIMIT_CORE, 0)
        _set(resource.RLIMIT_FSIZE, 0)
    pipe.send_bytes(b"{}")
    while True:
        try:
            task, limits = pipe.recv()
        except EOFError:
            return
        _limit(limits, base)
        try:
            answer = {"result": work(task)}
        except Exception as error:  # noqa: BLE001  # raised again on the other side
            answer = {"error": f"{type(error).__name__}: {error}"}
        pipe.send_bytes(json.dumps(answer).encode())


def _limit(limits: Limits, base: int | None) -> None:
    if resource is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + limits.cpu_seconds))
    if base is not None:
        _set(resource.RLIMIT_AS, base + (limits.memory_mb << 20))


def _set(kind: int, soft: int) -> None:
    """Lower or raise a limit, as far as the hard one of this machine allows."""
    assert resource is not None
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _address_space() -> int | None:
    """Bytes of address space in use; None where the system does not tell, and cannot limit it either."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
