"""The device, the seeds, and training on several processes against training on one.

Run as a program this file starts those processes (see `_start_ranks`).
"""

import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from svilm import runtime
from svilm.data.augment import CutPaste, sample_paste, targets
from svilm.losses import (
    grounding_similarity,
    instance_similarity,
    soft_target_cross_entropy,
    temporal_grouping_loss_from_clips,
)
from svilm.runtime import (
    RankError,
    all_agree,
    all_reduce_gradients,
    close_distributed,
    derive_seed,
    device_for,
    gather_objects,
    gather_with_gradient,
    init_distributed,
    rank,
    seed_everything,
    share_cores,
    world_size,
)

BATCH, STEPS = 12, 4


# One process ----------------------------------------------------------------------------------------------


def test_alone_everything_is_trivial():
    tensor = torch.ones(2, 3, requires_grad=True)
    assert (rank(), world_size()) == (0, 1)
    assert gather_with_gradient(tensor) is tensor
    assert (all_agree(True), all_agree(False)) == (True, False)
    assert gather_objects({"a": 1}) == [{"a": 1}]
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 3.0)
    all_reduce_gradients([parameter, nn.Parameter(torch.ones(1))])
    assert parameter.grad.tolist() == [3.0, 3.0]
    close_distributed()


def test_no_torchrun_no_group(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    init_distributed(torch.device("cpu"))
    assert not dist.is_initialized()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ValueError, match=r"RANK, MASTER_PORT is not; start several processes with torchrun"):
        init_distributed(torch.device("cpu"))


def test_device_for(monkeypatch):
    assert device_for("cpu") == torch.device("cpu")
    assert device_for().type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match="no device 'gpu'; use auto, cpu, cuda"):
        device_for("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_for() == device_for("cuda") == torch.device("cuda:1")
    assert device_for("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match="device 'cuda:2': torch sees 2 CUDA devices here"):
        device_for("cuda:2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert device_for("cuda") == torch.device("cuda:1")
    assert device_for("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="'cuda:0' is not the GPU of process 1 of 2; use cuda"):
        device_for("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device_for() == torch.device("cpu")
    with pytest.raises(ValueError, match="'mps' is not available"):
        device_for("mps")


def test_workers_leave_the_other_cores_to_torch(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    share_cores(1)  # OMP_NUM_THREADS is set for the tests: nothing happens
    monkeypatch.delenv("OMP_NUM_THREADS")
    for workers in (0, 1, 4, 9):
        share_cores(workers)
    assert asked == [4, 3, 1, 1]


def test_seed_everything_repeats_all_generators():
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    seed_everything(2**40 + 3)
    first = draw()
    assert draw() != first
    seed_everything(2**40 + 3)
    assert draw() == first


def test_derive_seed_is_the_same_everywhere_and_depends_on_every_part():
    assert derive_seed(0, "paste", 7) == 1522487947163337100  # written down: must never change
    parts = [
        (),
        (0,),
        ("0",),
        (0, 1),
        (1, 0),
        ("01",),
        ("0", "1"),
        (0, 1, ""),
        ("é",),
        ("\udce9",),
        (-1,),
        (2**80,),
    ]
    seeds = [derive_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(*parts[3]) == seeds[3]


# Several processes ----------------------------------------------------------------------------------------


class _Toy(nn.Module):
    """Two encoders small enough to compare every gradient, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.video, self.groups, self.steps = (nn.Linear(6, 5) for _ in range(3))
        self.text = nn.Linear(7, 5)
        self.log_scale = nn.Parameter(torch.tensor([2.0, 1.5]))
        self.first_clip_only = nn.Parameter(torch.ones(5))
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.double()

    def loss(self, rows: slice, gather: Callable[[Tensor], Tensor]) -> Tensor:
        """All three losses of the clips ``rows`` against the captions and clips of the whole batch."""
        data = torch.Generator().manual_seed(1)

        def inputs(*shape: int) -> Tensor:
            return torch.randn(BATCH, *shape, generator=data, dtype=torch.float64)[rows]

        paste = sample_paste(BATCH, STEPS, CutPaste(block=3), np.random.default_rng(5))
        wanted, mask = targets(paste), paste.mask[rows]
        noun_mask = (torch.rand(BATCH, 2, generator=data) < 0.6)[rows]
        video, groups, steps = self.video(inputs(6)), self.groups(inputs(4, 6)), self.steps(inputs(STEPS, 6))
        caption, nouns = self.text(inputs(7)), self.text(inputs(2, 7))
        if rows.start == 0:
            video = torch.cat([video[:1] * self.first_clip_only, video[1:]])
        global_scale, region_scale = self.log_scale.exp()
        all_nouns, all_masks = gather(nouns), gather(noun_mask)
        directions = [
            (instance_similarity(video, gather(caption)), wanted[rows], global_scale),
            (instance_similarity(caption, gather(video)), wanted.T[rows], global_scale),
            (grounding_similarity(groups, all_nouns, all_masks, 0.1), wanted[rows], region_scale),
            (grounding_similarity(gather(groups), nouns, noun_mask, 0.1).T, wanted.T[rows], region_scale),
        ]
        contrastive = [soft_target_cross_entropy(s * scale, w) for s, w, scale in directions]
        return torch.stack(contrastive).sum() + temporal_grouping_loss_from_clips(steps, mask, 0.1)


def _rank_program(folder: Path) -> None:
    """What each process runs: it saves the tensors that the tests below look at."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    init_distributed(torch.device("cpu"), timeout_minutes=1)
    runtime.BUCKET_ELEMENTS = 20
    me, world = rank(), world_size()
    toy = _Toy()
    part = BATCH // world
    loss = toy.loss(slice(me * part, (me + 1) * part), gather_with_gradient)
    loss.backward()
    all_reduce_gradients(toy.parameters())
    mixed = [nn.Parameter(torch.zeros(3, dtype=dtype)) for dtype in (torch.float32, torch.float64, torch.bfloat16)]
    for parameter in mixed:
        parameter.grad = torch.full_like(parameter, me)
    all_reduce_gradients(mixed)
    result = {
        "place": (me, world),
        "loss": loss.detach(),
        "gradients": {name: parameter.grad for name, parameter in toy.named_parameters()},
        "mixed": [parameter.grad for parameter in mixed],
        "gathered": gather_with_gradient(torch.arange(4).view(2, 2).T + 10 * me),
        "gathered_bool": gather_with_gradient(torch.tensor([me == 1])),
        "agree": (all_agree(True), all_agree(me != 1), all_agree(False)),
        "objects": gather_objects({"rank": me, "text": "x" * me}),
    }
    close_distributed()
    folder.mkdir(exist_ok=True)
    torch.save(result, folder / f"{me}.pt")


def _troubled_program(folder: Path) -> None:
    """Rank 1 hangs, the others wait for it and come at different times."""
    init_distributed(torch.device("cpu"), timeout_minutes=0.05)
    runtime.ROLL_SECONDS = 0.5
    me, told = rank(), []
    all_agree(True)
    if me != 1:
        time.sleep(me / 2)
        with pytest.raises(RankError) as error:
            all_agree(True)
        told.append(str(error.value))
        (folder / f"waited{me}").touch()
    while len(list(folder.glob("waited*"))) < 2:  # rank 0 keeps the numbers of all; otherwise torchrun does
        time.sleep(0.05)
    close_distributed()
    torch.save(told, folder / f"{me}.pt")


def _abandoned_program(folder: Path) -> None:
    """Rank 1 ends while rank 0 waits for it."""
    init_distributed(torch.device("cpu"), timeout_minutes=1)
    all_agree(True)
    if rank() == 0:
        with pytest.raises(RankError) as error:
            gather_objects("something")
        torch.save(str(error.value), folder / "left.pt")


def _start_ranks(folder: Path) -> None:
    """Start processes as torchrun does, from one program so that torch is imported once."""
    start = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    for world, program in ((2, _rank_program), (4, _rank_program), (3, _troubled_program), (2, _abandoned_program)):
        place = folder / (str(world) if program is _rank_program else "trouble")
        place.mkdir(exist_ok=True, parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(probe.getsockname()[1]), WORLD_SIZE=str(world))
        processes = []
        for number in range(world):
            os.environ.update(RANK=str(number), LOCAL_RANK=str(number))
            process = multiprocessing.get_context(start).Process(target=program, args=(place,))
            process.start()
            processes.append(process)
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            sys.exit(f"exit codes of {world} processes: {[process.exitcode for process in processes]}")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Folder with what `_rank_program` saved on 2 and on 4 processes."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_who_waits_too_long_names_the_ranks_that_do_not_come(results):
    for number in (0, 2):
        [told] = torch.load(results / "trouble" / f"{number}.pt")
        assert told.startswith(f"rank {number} waited 0.05 minutes for others (rank 1), which hang or are much slower")


def test_who_is_left_alone_points_to_the_other(results):
    told = torch.load(results / "trouble" / "left.pt")
    assert told.startswith("rank 0 lost another rank, which has ended; what that one said tells why")


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, results):
    """Results of the processes, in order of rank."""
    return [torch.load(results / str(request.param) / f"{number}.pt") for number in range(request.param)]


@pytest.fixture(scope="module")
def alone():
    toy = _Toy()
    loss = toy.loss(slice(0, BATCH), lambda tensor: tensor)
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in toy.named_parameters()}


def test_gradients_equal_those_of_one_process(ranks, alone):
    loss, gradients = alone
    torch.testing.assert_close(torch.stack([r["loss"] for r in ranks]).mean(), loss, atol=1e-10, rtol=0)
    for result in ranks:
        for name, expected in gradients.items():
            if name in ("unused", "frozen"):
                assert result["gradients"][name] is None
            else:
                assert expected.abs().max() > 1e-4
                torch.testing.assert_close(result["gradients"][name], expected, atol=1e-10, rtol=0)


def test_every_rank_knows_its_place_and_the_others(ranks):
    world = len(ranks)
    for number, result in enumerate(ranks):
        assert result["place"] == (number, world)
        assert result["agree"] == (True, False, False)
        assert result["objects"] == [{"rank": r, "text": "x" * r} for r in range(world)]


def test_gathering_keeps_order_shape_and_type(ranks):
    expected = torch.cat([torch.tensor([[0, 2], [1, 3]]) + 10 * number for number in range(len(ranks))])
    for result in ranks:
        assert torch.equal(result["gathered"], expected)
        assert torch.equal(result["gathered_bool"], torch.arange(len(ranks)) == 1)


def test_gradients_are_averaged_in_their_own_type(ranks):
    for result in ranks:
        assert [gradient.dtype for gradient in result["mixed"]] == [
            torch.float32,
            torch.float64,
            torch.bfloat16,
        ]
        assert all((gradient == (len(ranks) - 1) / 2).all() for gradient in result["mixed"])


if __name__ == "__main__":
    _start_ranks(Path(sys.argv[1]))
