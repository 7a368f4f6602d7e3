"""Whole videos to features on disk: resumed, shared by ranks, unreadable videos named."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import svilm.features.extract as extracting
from small import CONFIG
from small import model as small_model
from svilm.data.decode import index_video
from svilm.data.manifest import Header, Manifest, write_manifest
from svilm.data.sample import Sampling
from svilm.data.snippets import FeatureFolder, SnippetError, Windows, read_windows
from svilm.entries import Entry
from svilm.features.extract import Extraction, encode_video, extract, fingerprint
from svilm.models.dual import DualEncoder
from svilm.models.regions import RegionConfig

SAMPLING = Sampling(num_frames=8, size=16, short_side=16)
SETTINGS = Extraction(windows=Windows(fps=8, frames=4, stride=4), batch=3, dtype="float32")


@pytest.fixture(scope="module")
def manifest(world, tmp_path_factory) -> Manifest:
    """Five short videos, one of them twice, and one that is no video."""
    place = tmp_path_factory.mktemp("manifest")
    (place / "videos").mkdir()
    for number, video in enumerate(sorted((world / "videos").glob("*.mp4"))[:5]):
        (place / "videos" / f"v_{number}.mp4").write_bytes(video.read_bytes())
    (place / "videos" / "broken.mp4").write_bytes(b"no video")
    names = [f"v_{number}.mp4" for number in range(5)] + ["v_1.mp4", "broken.mp4"]
    entries = [Entry(f"e{k}", name, (), (), 0.5 if k else None) for k, name in enumerate(names)]
    write_manifest(place / "list.jsonl", Header("test", "videos", len(entries)), entries)
    return Manifest(place / "list.jsonl")


def rows_of(folder, manifest):
    return {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}


@pytest.fixture(scope="module")
def extracted(manifest, tmp_path_factory):
    place = tmp_path_factory.mktemp("features") / "all"
    return place, extract(small_model(), manifest, place, SETTINGS, SAMPLING, name="small")


def test_each_video_becomes_a_file_and_the_unreadable_are_named(extracted, manifest):
    place, made = extracted
    assert (made.made, made.kept, list(made.unreadable)) == (5, 0, ["broken"])
    assert sorted(path.name for path in place.iterdir()) == ["features.json", *(f"v_{k}.npy" for k in range(5))]
    origin = FeatureFolder(place).origin
    assert origin is not None and origin.unreadable.keys() == {"broken"} and origin.width == 16
    assert origin.weights == fingerprint(small_model()) != fingerprint(small_model(seed=1))
    assert "5 videos encoded, 0 there before, 1 unreadable" in str(made) and "broken: " in str(made)


def test_a_row_is_the_encoder_on_its_window(extracted, manifest):
    place, _ = extracted
    encoder = small_model().eval()
    pixels = torch.from_numpy(
        next(read_windows(index_video(manifest.root / "v_2.mp4"), SETTINGS.windows, SAMPLING, 99))
    )
    with torch.no_grad():
        features = encoder.encode_video(pixels)
    rows = np.load(place / "v_2.npy")
    np.testing.assert_allclose(rows, features.groups.mean(dim=1).numpy(), atol=1e-5)
    assert len(rows) == 4  # 2 s in steps of half a second
    index = index_video(manifest.root / "v_2.mp4")
    for vector, wanted in (("tokens", features.tokens.mean(dim=(1, 2))), ("projected", features.embedding)):
        chosen = SETTINGS.model_copy(update={"vector": vector})
        np.testing.assert_allclose(encode_video(encoder, index, chosen, SAMPLING), wanted.numpy(), atol=1e-5)


def test_what_is_there_is_kept(extracted, manifest, monkeypatch):
    place, _ = extracted
    before = (place / "v_0.npy").stat().st_mtime_ns
    (place / "v_3.npy").unlink()
    (place / "v_3.part").write_bytes(b"interrupted")
    again = extract(small_model(), manifest, place, SETTINGS, SAMPLING, name="small")
    assert (again.made, again.kept) == (1, 4) and (place / "v_0.npy").stat().st_mtime_ns == before
    assert np.load(place / "v_3.npy").shape == (4, 16) and not (place / "v_3.part").exists()


def test_worker_processes_change_nothing(extracted, manifest, tmp_path):
    place, _ = extracted
    extract(small_model(), manifest, tmp_path / "two", SETTINGS, SAMPLING, name="small", workers=2)
    one, two = rows_of(place, manifest), rows_of(tmp_path / "two", manifest)
    assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def test_ranks_share_the_videos(manifest, tmp_path, monkeypatch):
    todo = []
    for number in (0, 1):
        monkeypatch.setattr(extracting, "rank", lambda number=number: number)
        monkeypatch.setattr(extracting, "world_size", lambda: 2)
        folder = tmp_path / f"rank{number}"
        folder.mkdir()
        made = extract(small_model(), manifest, folder, SETTINGS, SAMPLING, name="small")
        todo.append({path.stem for path in folder.glob("*.npy")} | set(made.unreadable))
    assert not todo[0] & todo[1] and todo[0] | todo[1] == {*(f"v_{k}" for k in range(5)), "broken"}


def test_a_rank_that_looks_late_encodes_its_share_all_the_same(manifest, tmp_path, monkeypatch):
    """By then the other has written some of its videos, which must not shift what is whose."""
    folder, own = tmp_path / "features", threading.local()
    together, said = threading.Barrier(2, timeout=30), [None, None]
    listed = extracting._videos

    def gather(value):
        said[own.rank] = value
        together.wait()
        everything = list(said)
        together.wait()
        return everything

    def late(manifest):
        until = time.monotonic() + 1.0
        while own.rank == 1 and not any(folder.glob("*.npy")) and time.monotonic() < until:
            time.sleep(0.01)
        return listed(manifest)

    def start(number):
        own.rank = number
        return extract(encoders[number], manifest, folder, SETTINGS, SAMPLING, name="small")

    monkeypatch.setattr(extracting, "rank", lambda: own.rank)
    monkeypatch.setattr(extracting, "world_size", lambda: 2)
    monkeypatch.setattr(extracting, "gather_objects", gather)
    monkeypatch.setattr(extracting, "_videos", late)
    encoders = [small_model(), small_model()]
    with ThreadPoolExecutor(2) as ranks:
        made = list(ranks.map(start, range(2)))
    assert made[0] == made[1] and (made[0].made, made[0].kept, list(made[0].unreadable)) == (5, 0, ["broken"])
    assert sorted(path.stem for path in folder.glob("*.npy")) == [f"v_{number}" for number in range(5)]


def test_the_fingerprint_knows_all_that_features_depend_on():
    """Where there are regions they add to the video tokens; where there are none, it is what it always was."""
    encoder = small_model(config=CONFIG.model_copy(update={"regions": RegionConfig(depth=1)}))
    before = fingerprint(encoder)
    for part in (encoder.video, encoder.video_projection, encoder.regions):
        with torch.no_grad():
            list(part.parameters())[-1].add_(1.0)
        before, last = fingerprint(encoder), before
        assert before != last
    with torch.no_grad():
        encoder.text_projection.weight.add_(1.0)
    assert fingerprint(encoder) == before
    plain = DualEncoder(CONFIG)
    plain.load_state_dict({name: torch.ones_like(tensor) for name, tensor in plain.state_dict().items()})
    assert fingerprint(plain) == "4931434b3e47f834"


def test_other_features_are_refused(extracted, manifest, tmp_path):
    place, _ = extracted
    with pytest.raises(SnippetError, match=r"holds other features \(weights .*choose another folder"):
        extract(small_model(seed=1), manifest, place, SETTINGS, SAMPLING, name="other")
    with pytest.raises(SnippetError, match="stride 4, not 2"):
        changed = SETTINGS.model_copy(update={"windows": Windows(fps=8, frames=4, stride=2)})
        extract(small_model(), manifest, place, changed, SAMPLING, name="small")
    np.save(tmp_path / "x.npy", np.zeros((1, 1)))
    with pytest.raises(SnippetError, match="of unknown origin"):
        extract(small_model(), manifest, tmp_path, SETTINGS, SAMPLING, name="small")


def test_two_videos_of_one_name_are_refused(tmp_path):
    entries = [Entry("a", "x.mp4", (), ()), Entry("b", "x.avi", (), ())]
    write_manifest(tmp_path / "list.jsonl", Header("test", ".", 2), entries)
    with pytest.raises(SnippetError, match=r"would both have their features in x\.npy"):
        extract(small_model(), Manifest(tmp_path / "list.jsonl"), tmp_path / "f", SETTINGS, SAMPLING, name="small")


def test_half_precision_is_stated(manifest, tmp_path):
    few = Extraction(windows=SETTINGS.windows)
    extract(small_model(), manifest, tmp_path / "half", few, SAMPLING, name="small")
    assert np.load(tmp_path / "half" / "v_0.npy").dtype == np.float16
    assert json.loads((tmp_path / "half" / "features.json").read_text())["dtype"] == "float16"
