"""Where a program runs: its device, its seeds, and the other processes that train with it.

Without torchrun every function here is the trivial one of a single process, so callers never ask.
"""

import hashlib
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

BUCKET_ELEMENTS = 2**25
"""Gradients are averaged in pieces of at most this many numbers (128 MiB in fp32) or of one larger tensor."""
ROLL_SECONDS = 2.0
"""How often each process tells the others how far it is."""


class RankError(RuntimeError):
    """Not all processes came to where all must meet; the message says which did not."""


def device_for(name: str = "auto") -> torch.device:
    """The device called ``name``; "auto" takes CUDA, then Apple's MPS, then the CPU.

    A plain "cuda" (or "auto" finding CUDA) under torchrun means the GPU of this process, by LOCAL_RANK.
    Raises ValueError for a name that torch does not know, a device that this machine does not have, and one GPU that
    several processes of a machine would share.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"no device {name!r}; use auto, cpu, cuda, cuda:0 (or another number), mps") from None
    own, together = (int(os.environ.get(word, "0")) for word in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", own)
    if device.type == "cuda" and together > 1 and device.index != own:
        raise ValueError(
            f"device {name!r} is not the GPU of process {own} of {together}; use cuda, which gives each its own"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(device)!r}: torch sees {torch.cuda.device_count()} CUDA devices here; "
            "use auto or cpu, start no more processes than GPUs, or install a CUDA build of torch"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not available on this machine; use auto or cpu")
    return device


def share_cores(workers: int) -> None:
    """Give torch's own threads the cores that ``workers`` decoding processes leave, at least one.

    Threads of one operation wait for the slowest: on two cores beside one worker, two of them lose more to waiting
    than the second one gains.  OMP_NUM_THREADS, which torchrun sets, has the last word.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores - workers))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) made of all ``parts`` in their order, the same on every machine and version.

    ``derive_seed(seed, epoch, clip_id)`` makes the randomness of a sample independent of who loads it.
    """
    digest = hashlib.blake2b(json.dumps(parts).encode("ascii"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def init_distributed(device: torch.device, timeout_minutes: float = 30.0) -> None:
    """Join the processes that torchrun started, if it did; otherwise do nothing.

    Tensors on the CPU travel by gloo, those on GPUs by nccl.  A process that waits for others longer than
    ``timeout_minutes`` raises RankError, which names them.  Raises ValueError when torchrun's variables are
    incomplete.
    """
    global _roll
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"WORLD_SIZE is set but {', '.join(missing)} is not; start several processes with torchrun")
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    timeout = timedelta(minutes=timeout_minutes)
    store, number, world = next(dist.rendezvous("env://", timeout=timeout))  # type: ignore[attr-defined]
    store = _store_of_this_start(store, number, world, timeout)
    dist.init_process_group(backend, store=store, rank=number, world_size=world, timeout=timeout)
    _roll = _Roll(store, timeout_minutes)


def _store_of_this_start(store: Any, number: int, world: int, timeout: timedelta) -> Any:
    """A part of the store that no earlier start has used, the same for all processes.

    torchrun keeps one store for all its restarts (seen in torch 2.13), where a process would find the addresses of
    those that were killed, and try to reach them until it runs out of time.  So rank 0 answers each of the others
    under a word that this one has just made up.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    own = uuid.uuid4().hex
    if number > 0:
        store.set(f"hello/{number}", own)
        store.wait([f"welcome/{own}"], timeout)
        name = store.get(f"welcome/{own}").decode()
        store.set(f"joined/{name}/{number}", "")
        return PrefixStore(name, store)
    late, until = set(range(1, world)), time.monotonic() + timeout.total_seconds()
    while late and time.monotonic() < until:
        for other in sorted(late):
            if store.check([f"joined/{own}/{other}"]):
                late.remove(other)
            elif store.check([f"hello/{other}"]):  # perhaps that of an earlier start, which nobody hears answered
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", own)
        time.sleep(0.01)
    if late:
        minutes = timeout.total_seconds() / 60
        raise RankError(f"rank {', '.join(map(str, sorted(late)))} did not start within {minutes:g} minutes")
    return PrefixStore(own, store)


def close_distributed() -> None:
    """Leave the group of processes, if there is one; call it at the regular end of a program."""
    global _roll
    if _roll is not None:
        _roll.close()
        _roll = None
    if _distributed():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 to world_size() - 1."""
    return dist.get_rank() if _distributed() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _distributed() else 1


def gather_with_gradient(tensor: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "all_rows ..."]:
    """The tensors of all processes, in order of rank, joined along the first axis (world_size * rows long).

    Every process must pass the same shape.  The gradient of a process's own rows is the sum of what all
    processes send back for them.  So a loss that each process takes as the mean over its LOCAL rows against
    the gathered columns, with parameter gradients then averaged over processes (`all_reduce_gradients`),
    has exactly the gradient of one process holding the whole batch.
    """
    if world_size() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    # The gathering collectives that torch differentiates by itself warn of their removal (torch 2.13), and
    # gathering without a gradient for the other processes' rows scales the result by 1/world_size: Adam
    # forgives that, the SGD of the paper does not.

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = tensor.shape[0]
        gathered = tensor.new_empty(world_size() * ctx.rows, *tensor.shape[1:])
        with _meeting():
            dist.all_gather(list(gathered.chunk(world_size())), tensor.contiguous())
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        with _meeting():
            dist.all_reduce(total)
        return total.narrow(0, rank() * ctx.rows, ctx.rows)


def all_reduce_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Average the gradients of ``parameters`` over all processes, in place.

    Every process must pass the same parameters in the same order.  A parameter without a gradient here but
    with one elsewhere counts as zero here; without one anywhere it keeps none, as in a single process.
    """
    if world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    present = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.uint8)
    with _meeting():
        dist.all_reduce(present, op=dist.ReduceOp.MAX)
    gradients = []
    for parameter, somewhere in zip(trained, present.tolist(), strict=True):
        if somewhere and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        with _meeting():
            dist.all_reduce(flat)
        flat /= world_size()
        averages = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, average in zip(bucket, averages, strict=True):
            gradient.copy_(average.view_as(gradient))


def all_agree(ok: bool) -> bool:
    """Whether ``ok`` is true in every process; also a point that all processes must reach."""
    if world_size() == 1:
        return ok
    answer = torch.tensor([int(ok)])
    with _meeting():
        dist.all_reduce(answer, op=dist.ReduceOp.MIN)
    return bool(answer.item())


def gather_objects(value: Any) -> list[Any]:
    """The picklable ``value`` of every process, in order of rank, in every process."""
    values = [value] * world_size()
    if world_size() > 1:
        with _meeting():
            dist.all_gather_object(values, value)
    return values


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


class _Roll:
    """How many meetings each process has come to.  A thread tells the others, also while the process hangs."""

    def __init__(self, store: Any, minutes: float) -> None:
        self._store, self.minutes, self.meetings = store, minutes, 0
        self._closed = threading.Event()
        self._tell()
        self._thread = threading.Thread(target=self._keep_telling, daemon=True)
        self._thread.start()

    def behind(self) -> list[int]:
        """The ranks that did not come to the meeting at which this process is."""
        self._tell()
        time.sleep(2 * ROLL_SECONDS)
        counts = [int(self._store.get(f"meetings/{number}")) for number in range(world_size())]
        return [number for number, count in enumerate(counts) if count < self.meetings]

    def close(self) -> None:
        """Tell nothing any more."""
        self._closed.set()
        self._thread.join()

    def _keep_telling(self) -> None:
        with suppress(RuntimeError):  # the others have gone
            while not self._closed.wait(ROLL_SECONDS):
                self._tell()

    def _tell(self) -> None:
        self._store.set(f"meetings/{rank()}", str(self.meetings))


_roll: _Roll | None = None


@contextmanager
def _meeting() -> Iterator[None]:
    """Around everything that all processes must come to.  Raises RankError where some do not."""
    if _roll is None:
        yield
        return
    _roll.meetings += 1
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error).lower() for words in ("closed by peer", "reset by peer", "broken pipe")):
            raise RankError(
                f"rank {rank()} lost another rank, which has ended; what that one said tells why ({error})"
            ) from error
        if "timed out" not in str(error).lower():
            raise
        try:
            late = ", ".join(map(str, _roll.behind())) or "unknown"
        except RuntimeError:  # who keeps the numbers has gone as well
            late = "unknown"
        raise RankError(
            f"rank {rank()} waited {_roll.minutes:g} minutes for others (rank {late}), which hang or are much slower; "
            "look at what they do, for instance with py-spy, or raise timeout_minutes"
        ) from error


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Groups of one dtype and device with at most BUCKET_ELEMENTS numbers, or a single larger tensor."""
    open_buckets: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for gradient in gradients:
        kind = (gradient.dtype, gradient.device)
        bucket = open_buckets.setdefault(kind, [])
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket = open_buckets[kind] = []
        bucket.append(gradient)
    yield from open_buckets.values()
