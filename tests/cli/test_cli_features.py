"""`svilm features` and `svilm localize` as a user meets them."""

import json
import subprocess
import sys

import numpy as np
import pytest

from small import CONFIG
from small import model as small_model
from svilm.data.language import Language, Tokenizer
from svilm.data.loader import Data
from svilm.data.manifest import Header, write_manifest
from svilm.data.sample import Sampling
from svilm.data.world import read_untrimmed
from svilm.engine.optim import Optim
from svilm.engine.trainer import Training
from svilm.entries import Entry, Segment
from svilm.model import ModelConfig, SViLM
from svilm.models.gtad import GTADConfig
from svilm.run import Run, execute
from svilm.tasks.localization import Localization


def call(*words):
    done = subprocess.run(
        [sys.executable, "-m", "svilm", *map(str, words)], capture_output=True, text=True, timeout=240
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """A saved model and a manifest of one long video, with a run trained on its features from the command line."""
    folder = tmp_path_factory.mktemp("features")
    sampling = Sampling(num_frames=8, size=16, short_side=16)
    tokenizer = Tokenizer.train(["a red circle"], 50)
    config = ModelConfig(model=CONFIG, sampling=sampling, language=Language())
    SViLM(small_model(), tokenizer, config).save_pretrained(folder / "model")
    long = read_untrimmed(world)[0]
    segments = tuple(Segment(s.start, s.end, s.label) for s in long.segments)
    entry = Entry(long.id, long.video, ("x",), ((),), segments=segments, duration=long.num_frames / long.fps)
    write_manifest(folder / "list.jsonl", Header("world", str(world), 1), [entry])
    return folder, world / long.video


def test_features_then_a_run_then_one_video(place):
    folder, video = place
    words = [
        "--fps",
        "4",
        "--frames",
        "4",
        "--stride",
        "2",
        "--vector",
        "tokens",
        "--dtype",
        "float32",
        "--workers",
        "0",
    ]
    command = ("features", folder / "model", folder / "list.jsonl", "--to", folder / "out", *words)
    code, out, error = call(*command)
    assert code == 0 and "1 videos encoded, 0 there before, 0 unreadable" in out, error
    about = json.loads((folder / "out" / "features.json").read_text())
    assert about["vector"] == "tokens" and about["step_seconds"] == 0.5 and about["model"] == str(folder / "model")
    rows = np.load(next((folder / "out").rglob("*.npy")))
    assert rows.shape[1] == 16 and len(rows) > 30 and rows.dtype == np.float32
    code, out, error = call(*command)
    assert code == 0 and "0 videos encoded, 1 there before" in out, error

    network = GTADConfig(channels=16, steps=16, longest=16, width=8, wide=8, narrow=8, bins=4, context_bins=2)
    run = Run(
        recipe="test",
        model=CONFIG,
        data=Data(manifest=str(folder / "list.jsonl"), batch=1, workers=0),
        task=Localization(features=str(folder / "out"), network=network, classify="segment"),
        optim=Optim(optimizer="adam", lr=1e-3),
        training=Training(steps=1),
    )
    execute(run, folder / "run")
    code, out, error = call(
        "localize", folder / "run", video, "--to", folder / "t.png", "--most", "3", "--device", "cpu"
    )
    assert code == 0, error
    lines = out.splitlines()
    assert str(video) in lines[0] and "█" in lines[1] and lines[-1] == str(folder / "t.png")
    assert (folder / "t.png").stat().st_size > 5_000


def test_mistakes_end_in_one_line(place, tmp_path):
    folder, video = place
    for words, said in (
        (("features", folder / "model", folder / "no.jsonl", "--to", tmp_path / "a"), "no such manifest"),
        (("features", folder / "none", folder / "list.jsonl", "--to", tmp_path / "a"), "none"),
        (("localize", tmp_path, video), "no run.json"),
        (("localize", tmp_path, video, "--to", tmp_path / "t.xyz"), "t.xyz shall be a picture; give a name that ends"),
    ):
        code, _, error = call(*words)
        assert code == 1 and said in error and "Traceback" not in error
        assert len(error.strip().splitlines()) == 1
