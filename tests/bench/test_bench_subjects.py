"""Each subject at small sizes: its rows are there and finite, and its peers compute what ours computes."""

import math
import tarfile

import numpy as np
import pytest
import torch

from svilm.bench import apart, clones, growth, gtad, losses, machine, manifest, retrieval, roi, shards, step, text
from svilm.bench.encoder import (
    QUICK,
    first_layer,
    sum_of,
    videomae,
    vivit,
    with_grouping,
    with_more_tokens,
    without_grouping,
)
from svilm.bench.frame import CPU, How, Row
from svilm.bench.gpu import as_trained, on_device
from svilm.bench.gpu import rows as gpu_rows
from svilm.bench.material import film, material, noise_batch, training_step
from svilm.bench.pictures import bars, curves, save
from svilm.config import override
from svilm.data.decode import index_video
from svilm.losses import grounding_similarity
from svilm.models.layers import Block
from svilm.models.video import VideoEncoder
from svilm.recipes import recipe

HOW = How(repetitions=1, quick=True)


def checked(rows: list[Row]) -> list[Row]:
    """The rows, each measured and finite, or with a reason why not."""
    assert rows and len({row.name for row in rows}) == len(rows)
    for row in rows:
        if row.ours is None:
            assert row.note.startswith("not measured: ")
        else:
            assert all(value is None or math.isfinite(value) for value in (row.ours, row.peer, row.ratio)), row
            assert row.unit
    return rows


def test_the_machine_has_rates():
    found = checked(list(machine.rows(HOW)))
    assert all(row.ours > 0 for row in found)


def test_flops_are_counted_from_shapes_on_the_cpu_too():
    left, right = torch.zeros(3, 5), torch.zeros(5, 7)
    assert machine.forward_flops(lambda: left @ right) == 2 * 3 * 5 * 7
    query = torch.zeros(2, 4, 10, 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert machine.forward_flops(lambda: attention(query, query, query)) == 2 * (2 * 4 * 10 * 10 * 8) * 2


@pytest.mark.skipif(not apart.can_measure(), reason="needs /proc")
def test_peak_memory_is_that_of_the_work_alone():
    small, large = apart.costs(_hold, [(1,), (40,)])
    assert 39 < large.megabytes < 60 and small.megabytes < 10 and large.seconds > 0
    assert apart.cost(_hold, (20,), (1,)).megabytes == pytest.approx(20, abs=8)


def _hold(megabytes: int):
    return lambda: torch.ones(megabytes * 2**18).sum()


@pytest.mark.skipif(not apart.can_measure(), reason="needs /proc")
def test_memory_that_is_held_is_that_of_the_result():
    found = apart.held(_keep, (30,), (1,))
    assert found.megabytes == pytest.approx(30, abs=3) and found.seconds > 0


def _keep(megabytes: int):
    """Of twice as much, half is given back."""
    return [bytearray(megabytes << 20), bytearray(megabytes << 20)][0]


def test_a_manifest_is_held_against_all_its_lines(tmp_path):
    found = checked(list(manifest.rows(HOW)))
    assert "at random" in found[-1].name and len(found) == (3 if apart.can_measure() else 2)
    path = manifest.written(tmp_path / "m.jsonl", 30)
    listed, plain = manifest.Manifest(path), manifest.dictionaries(path)
    assert [entry.id for entry in listed] == [line["id"] for line in plain] and len(plain) == 30


def test_clips_from_shards_are_held_against_those_from_files():
    found = checked(list(shards.rows(HOW)))
    assert [row.name.partition(", ")[2] for row in found if row.ours] == [
        "packed against 160x120", "video2dataset's shards against 160x120",
        "packed against 96x64", "packed at 8 frames a second against 96x64",
        "packed as H.264 against 96x64",
    ]  # fmt: skip


def test_a_shard_of_video2dataset_is_written_with_the_defaults_of_ffmpeg(tmp_path):
    source = film(tmp_path / "film.mp4", 128, 72, 30, 10)
    folder = shards.video2dataset(source, tmp_path / "shards", "a caption")
    with tarfile.open(folder / "00000.tar") as tar:
        assert tar.getnames() == ["000000000.json", "000000000.mp4", "000000000.txt"]
        data = tar.extractfile("000000000.mp4").read()
    assert b" keyint=250 " in data and b" rc=crf " in data and b" crf=23.0 " in data and b" subme=7 " in data
    index = index_video(folder / "00000.tar" / "000000000.mp4")
    assert (index.width, index.height, len(index)) == (456, 256, 300)
    assert index.key_frames.sum() < 5  # the film itself has ten


def test_the_direct_grounding_loss_is_the_same_loss():
    groups, nouns = torch.randn(5, 4, 6), torch.randn(5, 3, 6)
    mask = torch.tensor([[True, True, True], [True, False, False]]).repeat(3, 1)[:5]
    ours, direct = (f(groups, nouns, mask, 0.1) for f in (grounding_similarity, losses.direct_similarity))
    torch.testing.assert_close(ours, direct)
    ours, peer = (losses.step(f, losses.SMALL)() for f in (grounding_similarity, losses.direct_similarity))
    torch.testing.assert_close(ours, peer, atol=1e-5, rtol=1e-4)


def test_sorting_finds_the_ranks_that_we_find():
    ours, peer = (retrieval.ranking(plain, 30, 200)() for plain in (False, True))
    assert ours.tolist() == peer.tolist() and len(set(ours)) > 3
    flat = np.ones((3, 2), dtype=np.float32)
    flat[:, 0] = [3, 1, 2]
    assert retrieval.by_sorting(np.eye(2, dtype=np.float32)[[0, 0, 0]], flat).tolist() == [1, 3, 2]


def test_gtad_and_roi_compare_equals():
    checked(list(roi.rows(HOW)))
    maps = [gtad.training_step(gtad.SMALL, materialised)() for materialised in (False, True)]
    torch.testing.assert_close(*maps, atol=1e-5, rtol=0)


def test_packed_and_padded_texts_have_the_same_vectors():
    found = checked(list(text.rows(HOW)))  # raises where they differ
    assert len(found) == 2 and "distinct" in found[0].name


def test_single_blocks_are_as_wide_as_ours():
    for model in (vivit(QUICK), videomae(QUICK)):
        layer = first_layer(model)
        assert sum_of(layer(torch.ones(1, 3, QUICK.width))).ndim == 0
        sizes = [
            sum(p.numel() for p in each.parameters() if p.ndim > 1) for each in (layer, Block(32, 2, 4.0, "gelu", 1e-6))
        ]
        assert sizes[0] == sizes[1]


def test_encoders_have_equal_shape():
    ours = VideoEncoder(QUICK.config())
    pixels = torch.randn(QUICK.clips, QUICK.frames, 3, QUICK.side, QUICK.side)
    tokens = QUICK.config().grid[0] * QUICK.config().grid[1] * QUICK.config().grid[2]
    for model, classes in ((vivit(QUICK), 1), (videomae(QUICK), 0)):
        states = model(pixels).last_hidden_state
        assert states.shape == (QUICK.clips, tokens + classes, QUICK.width)
        weights = sum(parameter.numel() for name, parameter in model.named_parameters() if "layer" in name)
        mine = sum(parameter.numel() for parameter in ours.blocks.parameters())
        assert weights == pytest.approx(mine, rel=0.02)
    assert sum_of((torch.ones(3), torch.ones(2), 0)) == 5


class Doubling(torch.nn.Module):
    def forward(self, tokens, groups):
        self.seen = tokens.shape, groups.shape
        return 2 * groups, None


def test_a_peer_groups_where_ours_does():
    pixels = torch.randn(QUICK.clips, QUICK.frames, 3, QUICK.side, QUICK.side)
    first, last = Doubling(), Doubling()
    torch.manual_seed(0)
    plain = with_more_tokens(videomae(QUICK), 3, QUICK.width).eval()
    before = plain(pixels).last_hidden_state
    after = with_grouping(plain, 3, (2,), [last])(pixels).last_hidden_state
    torch.testing.assert_close(after[:, 3:], before[:, 3:])
    assert not torch.allclose(after[:, :3], before[:, :3])
    with_grouping(plain, 3, (1,), [first])(pixels)
    assert first.seen == last.seen == ((QUICK.clips, before.shape[1] - 3, QUICK.width), (QUICK.clips, 3, QUICK.width))


def test_without_its_grouping_blocks_ours_is_the_rest():
    torch.manual_seed(0)
    whole = VideoEncoder(QUICK.config()).eval()  # whose grouping blocks change nothing at first
    video = torch.randint(0, 256, (1, QUICK.frames, QUICK.side, QUICK.side, 3), dtype=torch.uint8)
    tokens, groups, _ = whole(video)
    bare = without_grouping(whole)
    assert not list(bare.grouping.parameters())
    torch.testing.assert_close(bare(video)[:2], (tokens, groups))


def test_a_peer_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(clones.Absent, match="give --peers DIR"):
        clones.grouping_block(None, 32, 4, 2)
    with pytest.raises(clones.Absent, match="clone GroupViT into"):
        clones.grouping_block(tmp_path, 32, 4, 2)


def test_a_clone_is_imported_in_place_and_leaves_nothing_behind(tmp_path):
    pytest.importorskip("einops")
    import sys

    file = tmp_path / "GroupViT" / "models" / "group_vit.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import torch.nn as nn\n"
        "from timm.models.layers import DropPath, to_2tuple, trunc_normal_\n"
        "from .builder import MODELS\n"
        "from .misc import Result\n"
        "@MODELS.register_module()\n"
        "class GroupingBlock(nn.Module):\n"
        "    def __init__(self, *, dim, num_output_group, **others):\n"
        "        super().__init__()\n"
        "        self.pair = to_2tuple(dim)\n"
    )
    known = set(sys.modules)
    assert clones.grouping_block(tmp_path, 32, 4, 2).pair == (32, 32)
    assert set(sys.modules) == known


def test_the_parts_of_a_step_are_those_of_training(tmp_path):
    with material("tiny", clips=4, batch=4) as made:
        batch = made.batches(1)[0]
        assert len(batch) == 4 and batch.paste is not None
        rates = machine.Rates(1e9, 1e9)
        found = {**step.reading(made, batch, rates), **step.computing(made, batch, rates)}
        assert set(found) == {
            "read", "cut-and-paste", "noun prompts, tokens", "video encoder", "text encoder",
            "contrast loss", "grounding loss", "grouping loss", "optimiser",
        }  # fmt: skip
        for part in found.values():
            part.work()
        assert 0 < step.scaling_share(found["read"].work) < 1
        assert found["video encoder"].floor > found["text encoder"].floor > found["contrast loss"].floor > 0
        job = made.job(CPU)
        whole = 3 * machine.forward_flops(lambda: job.task.loss(job.model, job.task.features(job.model, batch), batch))
        parts = [part.floor for name, part in found.items() if "encoder" in name or "loss" in name]
        assert sum(parts) == pytest.approx(whole / 1e9, rel=0.02)


def test_a_step_on_noise_changes_every_weight():
    taken = training_step(recipe("tiny"), 4)
    before = {name: weight.clone() for name, weight in taken.model.named_parameters()}
    taken()
    still = [name for name, weight in taken.model.named_parameters() if torch.equal(weight, before[name])]
    assert not [name for name in still if "word_embeddings" not in name and "key.bias" not in name]
    batch = noise_batch(override(recipe("tiny"), ["data.sampling.num_frames=16"]), 3)
    assert batch.video.shape == (3, 16, 64, 64, 3) and batch.noun_mask.all()
    assert int(batch.noun_index.min()) >= 3


def test_gpu_rows_run_anywhere():
    run = override(recipe("tiny"), ["training.precision=bf16"])
    found = {row.name: row for row in checked(list(on_device(run, CPU, (2, 4), HOW)))}
    peak = found["GPU: training, activation checkpointing off, against the peak"]
    percent = found["GPU: training, activation checkpointing off, of the peak; the peer is the goal"]
    assert percent.ours == pytest.approx(100 * peak.ratio) and percent.peer == 50
    small = override(recipe("tiny"), ["data.batch=32", "training.micro_batch=2"])
    speed, hours = checked(list(as_trained(small, CPU, HOW)))
    assert "4 clips as the recipe `tiny` takes them on one of 8 GPUs" in speed.name and "2 at a time" in speed.note
    assert hours.ours == pytest.approx(33e6 / speed.ours / 3600)
    if not torch.cuda.is_available():
        (row,) = gpu_rows(HOW)
        assert row.note == "not measured: no CUDA GPU"


def test_memory_that_does_not_suffice_ends_the_search_for_a_larger_batch(monkeypatch):
    from svilm.bench import gpu

    def make(run, clips, device):
        if clips > 2:
            raise torch.OutOfMemoryError("full")
        return training_step(run, clips, device)

    monkeypatch.setattr(gpu, "training_step", make)
    found = gpu.speeds(recipe("tiny"), CPU, (1, 2, 4, 8), HOW)
    assert [each.clips for each in found] == [1, 2]
    assert gpu.speeds(recipe("tiny"), CPU, (4,), HOW) == []
    rows = [*gpu.what_each_brings(recipe("tiny"), CPU, 4, HOW), *gpu.as_trained(recipe("tiny"), CPU, HOW)]
    assert [row.note.partition(": ")[2] for row in rows] == ["it does not fit into the memory", "", rows[2].note[14:]]
    assert [row.ours is None for row in rows] == [True, False, True]


@pytest.mark.compile
def test_the_encoders_compile_without_graph_breaks():
    from svilm.bench.gpu import graph_breaks

    assert graph_breaks(training_step(recipe("tiny"), 2)) == 0


def test_slopes_and_stretches():
    curve = growth.curve_of([1, 2, 4, 8], [1.0, 1.0, 2.0, 8.0])
    assert curve.slopes == pytest.approx([0, 1, 2])
    assert growth.stretches(curve) == [("below", 1, 2), ("linear", 2, 4), ("above", 4, 8)]
    assert growth.stretches(growth.curve_of([1, 2, 4], [1.0, 2.0, 4.1])) == [("linear", 1, 4)]


def test_several_processes_step_together():
    found = growth.processes(2, clips=2, repetitions=1)
    assert found.gather > 0 and found.step > 0


def test_pictures_are_drawn(tmp_path):
    save(bars({"tiny": {"decode": (0.2, 0.0), "video encoder": (0.8, 0.4)}}), tmp_path / "new" / "step.png")
    panel = {"frames": {"time": growth.curve_of([1, 2, 4], [1.0, 2.0, 8.0])}}
    save(curves(panel, "seconds"), tmp_path / "growth.png")
    for file in (tmp_path / "new" / "step.png", tmp_path / "growth.png"):
        assert file.read_bytes().startswith(b"\x89PNG")


def test_a_peer_that_would_not_fit_into_memory_is_left_out(monkeypatch):
    assert apart.free_gigabytes() > 0
    monkeypatch.setattr(apart, "free_gigabytes", lambda: 4.0)
    (row,) = losses.rows(How(repetitions=1))
    assert row.note == "not measured: the direct form takes 13 GB, and 4 GB of memory are free"
