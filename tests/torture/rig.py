"""Runs to be tortured, what is left of them, and the harm that is done to them."""

import contextlib
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch

from svilm.data import loader
from svilm.data.loader import Data, Order, training_batches
from svilm.engine import checkpoint
from svilm.engine.checkpoint import Checkpoints, load_state, load_weights
from svilm.engine.logbook import read_metrics
from svilm.engine.trainer import Training, backward, gradient_norm
from svilm.types import Batch
from torture.child import (
    EPOCH,
    Poisoned,
    Toy,
    digest,
    in_a_process_of_its_own,
    make_model,
    make_videos,
    parts_of,
)
from torture.frame import Plan

PATIENCE = 120.0
"""Seconds after which a process that should end is taken to hang."""
PLACES = ("starting", "training", "saving")
"""Where a run may be when it is killed."""


# Runs


class Wanted:
    """What a run that was left alone came to."""

    def __init__(self, toy: Toy, seconds: float) -> None:
        self.toy, self.seconds = toy, seconds
        training = read_metrics(Path(toy.folder))[-1]["seconds"]
        self.start_seconds, self.step_seconds = max(0.1, seconds - training), training / toy.steps
        self.end = end_state(Path(toy.folder))
        self.losses = losses_of(Path(toy.folder))
        self.trace = [{key: row[key] for key in ("step", "ids", "pixels", "captions")} for row in trace_of(toy)]

    def differences(self, toy: Toy, when: str, finished: bool = True) -> Iterator[str]:
        """In what another run, finished or killed, is not the same."""
        folder = Path(toy.folder)
        losses = losses_of(folder) if (folder / "metrics.jsonl").exists() else []
        if losses != self.losses[: None if finished else len(losses)]:
            yield f"{when}: other losses"
        for row in trace_of(toy):
            if {**row, **self.trace[row["step"]]} != row:
                yield f"{when}: another batch at step {row['step']}"
        if finished:
            yield from (f"{when}: other {name}" for name, value in end_state(folder).items() if value != self.end[name])


def new_toy(plan: Plan) -> Toy:
    """A run in the scratch folder."""
    return Toy(str(make_videos(plan.folder / "videos", plan.seed)), str(plan.folder / "run"), plan.seed)


def undisturbed(toy: Toy) -> Wanted:
    """Run it in a process of its own, and take the time."""
    processes()
    toy = replace(toy, folder=str(Path(toy.folder).with_name("undisturbed")))
    begun = time.monotonic()
    code = end_of(toy)
    assert code == 0, tail(toy)
    return Wanted(toy, time.monotonic() - begun)


def undisturbed_on_two_ranks(toy: Toy) -> Wanted:
    """Run it in two processes."""
    toy = replace(toy, folder=str(Path(toy.folder).with_name("undisturbed")))
    codes = [ended(process) for process in started_on_two_ranks(toy)]
    assert not any(codes), tail(toy)
    return Wanted(toy, 0.0)


@cache
def processes() -> Any:
    """Processes that have imported everything before they begin."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    context = get_context("forkserver")
    context.set_forkserver_preload(["torture.child"])
    warm = context.Process(target=time.sleep, args=(0,))
    warm.start()
    warm.join()
    return context


def started(toy: Toy) -> Any:
    """The run in a process of its own."""
    process = processes().Process(target=in_a_process_of_its_own, args=(toy, {}))
    process.start()
    return process


def started_on_ranks(world: int, work: Callable[..., None], toy: Toy) -> list[Any]:
    """A function of a run in several processes, told of each other as torchrun tells them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)}
    found = []
    for number in range(world):
        environment = {**common, "RANK": str(number), "LOCAL_RANK": str(number)}
        found.append(processes().Process(target=work, args=(toy, environment)))
        found[-1].start()
    return found


def started_on_two_ranks(toy: Toy) -> list[Any]:
    """The run in two processes."""
    return started_on_ranks(2, in_a_process_of_its_own, toy)


def ended(process: Any) -> int | None:
    """The exit code of a process; one that hangs is killed and has none."""
    if isinstance(process, subprocess.Popen):
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return int(process.exitcode)


def end_of(toy: Toy) -> int | None:
    """Run it: the exit code."""
    return ended(started(toy))


def await_place(place: str, toy: Toy, process: Any, wanted: Wanted, rng: random.Random) -> None:
    """Wait until a run is at one of PLACES, and a random while longer; or until it has ended."""
    known, steps = traces_of(toy), rng.randint(1, 8)
    if place == "starting":
        time.sleep(rng.uniform(0, wanted.start_seconds))
        return
    wait_for(lambda: traces_of(toy).steps >= known.steps + steps or not process.is_alive())
    if place == "saving":
        wait_for(lambda: traces_of(toy).saves - known.saves or not process.is_alive(), often=0.0005)
    time.sleep(rng.uniform(0, wanted.step_seconds / 2))


class Traces(NamedTuple):
    """What a run has left so far."""

    steps: int
    """Batches that it was given."""
    saves: frozenset[tuple[str, int]]
    """Checkpoints that are not whole, with the times at which they were begun."""


def traces_of(toy: Toy) -> Traces:
    """Look at the folder of a run."""
    saves = set()
    for part in Path(toy.folder).glob("checkpoints/*.part"):
        with contextlib.suppress(FileNotFoundError):
            saves.add((part.name, part.stat().st_mtime_ns))
    return Traces(len(trace_of(toy)), frozenset(saves))


def place_of(before: Traces, after: Traces) -> str:
    """Which of PLACES a run had come to when it died."""
    return "saving" if after.saves - before.saves else "training" if after.steps > before.steps else "starting"


def kill_some(pid: int, rng: random.Random) -> None:
    """Kill a process, or as often also those that it has started, once it leads a group."""
    with contextlib.suppress(ProcessLookupError):
        alone = rng.random() < 0.5 or os.getpgid(pid) != pid
        (os.kill if alone else os.killpg)(pid, signal.SIGKILL)


def group_lives(pid: int) -> bool:
    """Whether any process is left of those that one has started."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def torchrun(toy: Toy, restarts: int = 50) -> Iterator[subprocess.Popen[bytes]]:
    """The run on two ranks, which is ended if it has not when the caller is done with it."""
    folder = Path(toy.folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    program = [sys.executable, *words, "-m", "torture.child", json.dumps(vars(toy))]
    paths = os.pathsep.join(filter(None, sys.path))
    with open(folder / "log.txt", "ab") as log:
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(program, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # which torchrun hands on to the ranks
            ended(process)


def steps_went_on(toy: Toy, process: subprocess.Popen[bytes]) -> bool:
    """Wait for three more steps; False where the run ends, or does nothing for too long."""
    before = traces_of(toy).steps
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: traces_of(toy).steps >= before + 3 or process.poll() is not None)
    return process.poll() is None and traces_of(toy).steps >= before + 3


def quietly(work: Callable[[Toy], Any], toy: Toy) -> list[str]:
    """Run it in this process without its progress bar, and return its warnings."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.simplefilter("always")
        work(toy)
    return [str(warning.message) for warning in told]


def wait_for(happened: Callable[[], bool], often: float = 0.005) -> None:
    """Wait until something is so, looking every so many seconds.  Raises TimeoutError."""
    until = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > until:
            raise TimeoutError(f"nothing happened within {PATIENCE:g} s")
        time.sleep(often)


# What is left of a run


def end_state(folder: Path) -> dict[str, str]:
    """Hashes of everything in the last checkpoint."""
    newest = Checkpoints(folder / "checkpoints").latest()
    if newest is None:
        return {}
    return {"weights": digest(load_weights(newest, "model")), "training state": digest(load_state(newest))}


def losses_of(folder: Path) -> list[dict[str, float]]:
    """All logged numbers except those of the clock."""
    names = ("seconds", "speed/clips_per_second", "speed/waiting_for_data")
    return [{k: v for k, v in row.items() if k not in names} for row in read_metrics(folder)]


def rows_of(toy: Toy, name: str) -> list[Any]:
    """The lines of a file in the run folder."""
    path = Path(toy.folder) / name
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def trace_of(toy: Toy, number: int = 0) -> list[Any]:
    """What each step was given, in order of time."""
    return [row for row in rows_of(toy, f"trace{number}.jsonl") if "step" in row]


def size_of(path: Path) -> int:
    """Bytes; none when it is not there."""
    return path.stat().st_size if path.exists() else 0


def tail(toy: Toy) -> str:
    """The end of what a run said."""
    path = Path(toy.folder) / "log.txt"
    return path.read_text(errors="replace")[-1500:] if path.exists() else ""


# Batches


def look(batch: Batch) -> str:
    """A hash of everything in a batch."""
    assert batch.paste is not None
    tensors = [batch.video, batch.seconds, batch.view, batch.text_ids, batch.noun_index, batch.noun_mask]
    return digest([*tensors, batch.paste.mask, batch.paste.partner, batch.ids, batch.captions, batch.nouns])


def look_at_clips(batch: Batch) -> list[str]:
    """A hash of each clip."""
    clips = zip(batch.video, batch.seconds, batch.view, batch.ids, batch.captions, batch.nouns, strict=True)
    return [digest(list(clip)) for clip in clips]


def shares_of(toy: Toy, number: int, world: int) -> Iterator[Batch]:
    """The batches of one of several ranks, without the others."""
    items, tokenizer = parts_of(toy)
    known = loader.rank, loader.world_size
    loader.rank, loader.world_size = (lambda: number), (lambda: world)
    try:
        yield from training_batches(items, toy.data, tokenizer, seed=toy.seed, start=0, stop=EPOCH)
    finally:
        loader.rank, loader.world_size = known


def trouble_of(toy: Toy, data: Data) -> Iterator[str]:
    """What is not finite in the losses and gradients of a step."""
    items, tokenizer = parts_of(toy)
    model = make_model(tokenizer, toy.seed)
    task = Poisoned("", model)
    for batch in training_batches(items, data, tokenizer, seed=toy.seed, start=0, stop=2):
        model.zero_grad()
        terms = backward(model, task, batch, Training())
        values = {**terms.losses, "norm": gradient_norm(list(model.parameters()), 0.0)}
        yield from (f"{name} is {value}" for name, value in values.items() if not torch.as_tensor(value).isfinite())


# Harm


@contextlib.contextmanager
def stopping_before(step: int) -> Iterator[None]:
    """Runs of this process are interrupted before a step."""
    whole = Order.__iter__

    def until(self: Order) -> Iterator[Any]:
        for keys in whole(self):
            if keys[0].step == step:
                raise KeyboardInterrupt
            yield keys

    Order.__iter__ = until  # type: ignore[method-assign]
    try:
        yield
    finally:
        Order.__iter__ = whole  # type: ignore[method-assign]


@contextlib.contextmanager
def full_disk(room: int | None) -> Iterator[None]:
    """Checkpoints find only so many bytes of room; None is enough for all."""

    class Small:
        def __init__(self, file: Path, mode: str) -> None:
            self.file = open(file, mode)  # noqa: SIM115

        def write(self, data: Any) -> None:
            nonlocal room
            assert room is not None
            self.file.write(data[:room])
            if len(data) > room:
                room = 0
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            room -= len(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> "Small":
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

    if room is not None:
        checkpoint.open = Small  # type: ignore[attr-defined]
    try:
        yield
    finally:
        vars(checkpoint).pop("open", None)
