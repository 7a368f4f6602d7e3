"""Shards take the place of the files: the same batches come out of them, and a run needs nothing else."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svilm.config import override
from svilm.data.cut import Packing
from svilm.data.language import Tokenizer
from svilm.data.loader import Data, Items, training_batches
from svilm.data.manifest import Manifest, write_manifest
from svilm.data.pack import pack
from svilm.data.prepare import msrvtt, videocc, webdataset
from svilm.data.prepare.common import prepare
from svilm.data.sample import Sampling
from svilm.recipes import recipe
from svilm.run import execute, load_run
from svilm.types import Batch

CLIPS = 12
SMALL = (
    "training.steps=3", "training.log_every=1", "data.batch=4", "data.workers=0", "data.sampling.num_frames=4",
    "model.video.grid=[2,4,4]", "model.video.width=32", "model.video.depth=2", "model.video.heads=2",
    "model.video.group_after=[1,2]", "model.text.width=32", "model.text.depth=1", "model.text.heads=2",
    "model.common=16",
)  # fmt: skip


@pytest.fixture(scope="module")
def originals(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Manifests of a few training clips, of which some begin late, and of the test clips; in video files."""
    place = tmp_path_factory.mktemp("files")
    listing = videocc.listing(world / "videocc" / "video_cc_public.csv")
    prepare(listing, to=place / "all.jsonl", videos=world / "videos", check="none")
    whole = Manifest(place / "all.jsonl")
    late = (replace(entry, start=0.3) if number % 3 else entry for number, entry in enumerate(list(whole)[:CLIPS]))
    write_manifest(place / "train.jsonl", replace(whole.header, official=CLIPS), late)
    listing = msrvtt.listing(world / "msrvtt", split="test")
    prepare(listing, to=place / "test.jsonl", videos=world / "videos", check="none")
    return {name: place / f"{name}.jsonl" for name in ("train", "test")}


@pytest.fixture(scope="module")
def packed(originals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same as `svilm pack` makes them, in shards of five clips."""
    place = tmp_path_factory.mktemp("shards")
    return {
        name: pack(path, place / name, Packing(shard_size=5), workers=0).manifest for name, path in originals.items()
    }


def batches(manifest: Path, count: int = 2 * CLIPS // 4) -> list[Batch]:
    """Two epochs of training batches."""
    listed = Manifest(manifest)
    tokenizer = Tokenizer.train((caption for entry in listed for caption in entry.captions), 300)
    data = Data(batch=4, workers=0, flip=0.5, sampling=Sampling(num_frames=6, size=48))
    return list(training_batches(Items(listed), data, tokenizer, seed=3, start=0, stop=count))


def test_batches_from_packed_shards_are_those_from_the_files(
    originals: dict[str, Path], packed: dict[str, Path]
) -> None:
    assert all(".tar/" in entry.video for entry in Manifest(packed["train"]))
    for old, new in zip(batches(originals["train"]), batches(packed["train"]), strict=True):
        assert (old.ids, old.captions, old.nouns) == (new.ids, new.captions, new.nouns)
        assert torch.equal(old.text_ids, new.text_ids) and torch.equal(old.view, new.view)
        starts = [torch.tensor([entry.start or 0.0 for entry in batch.entries])[:, None] for batch in (old, new)]
        torch.testing.assert_close(old.seconds - starts[0], new.seconds - starts[1], rtol=0, atol=1e-6)
        assert old.paste is not None and new.paste is not None and torch.equal(old.paste.mask, new.paste.mask)
        apart = (old.video[:, None].float() - new.video[None].float()).abs().mean((2, 3, 4, 5))
        assert apart.diagonal().max() < 8  # grey levels; the clips of this world are full of grain
        assert (apart + 1000 * torch.eye(len(apart))).min() > 2 * apart.diagonal().max()


def test_a_run_trains_and_is_evaluated_from_shards_alone(packed: dict[str, Path], tmp_path: Path) -> None:
    files = [f"data.manifest={packed['train']}", f"retrieval.manifest={packed['test']}"]
    scores = execute(override(recipe("tiny"), [*SMALL, *files]), tmp_path / "run")
    assert scores["retrieval/scored"] == scores["retrieval/official"] == len(Manifest(packed["test"]))
    assert 0 <= scores["retrieval/text_to_video/R@10"] <= 100
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3] and all(line["data/skipped"] == 0 for line in lines)
    protocols = json.loads((tmp_path / "run" / "protocols.json").read_text())
    assert "packed at 256, mjpeg qscale 6" in json.dumps(protocols)
    assert load_run(tmp_path / "run").data.manifest == str(packed["train"])


def test_batches_from_the_tar_of_another_tool_are_those_from_its_files(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    old = Manifest(originals["test"])
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "00000.tar", "w|") as tar:  # as WebDataset's writer does it
        for number, entry in enumerate(old):
            about = {"key": f"{number:09d}", "caption": entry.captions[0], "status": "success", "error_message": None}
            parts = {"json": json.dumps(about, indent=4).encode(), "mp4": old.path_of(entry).read_bytes()}
            for extension, content in {**parts, "txt": entry.captions[0].encode()}.items():
                member = tarfile.TarInfo(f"{number:09d}.{extension}")
                member.size, member.mode, member.mtime = len(content), 0o444, 1.5  # so it has a header of its own
                tar.addfile(member, io.BytesIO(content))
    new = tmp_path / "new.jsonl"
    prepare(webdataset.listing(tmp_path / "shards"), to=new, videos=tmp_path / "shards", check="none")
    for ours, theirs in zip(batches(originals["test"]), batches(new), strict=True):
        assert torch.equal(ours.video, theirs.video) and torch.equal(ours.seconds, theirs.seconds)
        assert ours.captions == theirs.captions
