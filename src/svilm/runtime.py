"""Where a program runs: its device, its seeds, and the other processes that train with it.

Without torchrun every function here is the trivial one of a single process, so callers never ask.
"""

import hashlib
import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
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


def device_for(name: str = "auto") -> torch.device:
    """The device called ``name``; "auto" takes CUDA, then Apple's MPS, then the CPU.

    A plain "cuda" (or "auto" finding CUDA) under torchrun means the GPU of this process, by LOCAL_RANK.
    Raises ValueError for a name that torch does not know or a device that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"no device {name!r}; use auto, cpu, cuda, cuda:0 (or another number), mps") from None
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
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

    Tensors on the CPU travel by gloo, those on GPUs by nccl.  A collective that waits longer than
    ``timeout_minutes`` raises instead of hanging.  Raises ValueError when torchrun's variables are
    incomplete.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"WORLD_SIZE is set but {', '.join(missing)} is not; start several processes with torchrun")
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))


def close_distributed() -> None:
    """Leave the group of processes, if there is one; call it at the regular end of a program."""
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
        dist.all_gather(list(gathered.chunk(world_size())), tensor.contiguous())
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
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
    dist.all_reduce(present, op=dist.ReduceOp.MAX)
    gradients = []
    for parameter, somewhere in zip(trained, present.tolist(), strict=True):
        if somewhere and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
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
    dist.all_reduce(answer, op=dist.ReduceOp.MIN)
    return bool(answer.item())


def gather_objects(value: Any) -> list[Any]:
    """The picklable ``value`` of every process, in order of rank, in every process."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


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
