"""An index answers in words and by example, draws what it found, and never leaves its folder."""

import shutil
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

import svilm
from svilm import backbones
from svilm.data.decode import DecodeError, index_video, read_frames
from svilm.data.sample import Sampling, load_clip
from svilm.data.words import LONGEST_QUERY
from svilm.search.build import build_index
from svilm.search.examples import read_example
from svilm.search.index import MOST_HITS, Index
from svilm.search.moments import Splitting
from svilm.search.records import Filter, Moment
from svilm.search.sheet import write_sheet
from tiny_models import own_model


@pytest.fixture
def opened(videos, model_folder, tmp_path):
    splitting = Splitting(shortest=1.0, longest=4.0)
    build_index(videos, tmp_path / "index", str(model_folder), splitting=splitting, workers=0)
    with svilm.Index(tmp_path / "index") as index:
        yield index


def test_words_find_the_nearest_moments(opened, model_folder, videos):
    hits = opened.search("a red circle", 100)
    assert [hit.rank for hit in hits] == list(range(1, len(opened) + 1))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    model = svilm.load(str(model_folder), "cpu")
    best = hits[0].moment
    wanted = model.encode_text("a red circle") @ model.encode_video(videos / best.video, best.start, best.end).T
    assert abs(hits[0].score - float(wanted)) < 1e-5
    below = opened.search("a red circle", 100, Filter("sub", shortest=1.0))
    assert {hit.moment.video for hit in below} == {"sub/it's ☃.mkv", "sub/short.mp4"}
    assert below and all(hit.moment.end - hit.moment.start > 0.99 for hit in below)
    assert "7 moments of 5 videos" in repr(opened)


def test_a_timeline_has_all_moments_in_order(opened):
    times = opened.timeline("a red circle", "scenes.mp4")
    scores = {hit.moment: hit.score for hit in opened.search("a red circle", 100)}
    assert [moment.start for moment, _ in times] == [0.0, 2.5]
    for moment, score in times:
        assert abs(scores[moment] - score) < 1e-6


def test_a_video_that_the_index_does_not_have_is_named(opened, videos):
    wanted = f"^{opened.folder} has no video 'nosuch.mp4'; give one of .videos: names relative to {videos}, "
    for ask in (
        lambda: opened.timeline("a red circle", "nosuch.mp4"),
        lambda: opened.path_of("nosuch.mp4"),
        lambda: opened.ground(Moment("nosuch.mp4", 0.0, 1.0), "circle"),
    ):
        with pytest.raises(KeyError, match=wanted):
            ask()
    with pytest.raises(KeyError, match=r"'text.mp4' could not be indexed \(not_a_video"):
        opened.timeline("a red circle", "text.mp4")


def test_the_package_lists_what_it_loads_late():
    assert {"Index", "SViLM", "load"} <= set(dir(svilm))


def test_a_query_is_encoded_once_and_few_are_kept(opened, model_folder, monkeypatch):
    encoded = []
    kind = type(backbones.load_backbone(str(model_folder), "cpu"))
    through = kind.encode_text
    monkeypatch.setattr(kind, "encode_text", lambda self, texts: encoded.extend(texts) or through(self, texts))
    monkeypatch.setattr("svilm.search.index.KEPT_QUERIES", 2)
    for query in ("one", "two", " one ", "three", "two", "one"):
        opened.search(query, 1)
    assert encoded == ["one", "two", "three", "one"]


def test_examples_find_themselves(opened, videos, tmp_path):
    path = videos / "scenes.mp4"
    like = opened.search_like(path, 1, start=2.5, end=6.0)[0]
    assert like.moment == Moment("scenes.mp4", 2.5, 6.0) and like.score > 0.9999
    frames = read_frames(index_video(path), [30] * 4)
    by_frames = opened.search_like(frames, 1)[0]
    assert by_frames.moment == like.moment and by_frames.score > 0.9
    vector = opened.encode_like(path, start=2.5, end=6.0)
    assert opened.search(vector, 1) == [like]
    assert opened.timeline(vector, "scenes.mp4")[1] == (like.moment, pytest.approx(like.score, abs=1e-6))
    Image.fromarray(frames[0]).save(tmp_path / "frame.png")
    assert opened.search_like(tmp_path / "frame.png", 1)[0].moment == like.moment
    with pytest.raises(ValueError, match="not a picture"):
        opened.search_like(videos / "notes.txt")
    with pytest.raises(ValueError, match="a picture has no start or end"):
        opened.search_like(tmp_path / "frame.png", start=1.0)
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        opened.search_like(frames[0])
    with pytest.raises(DecodeError):
        opened.search_like(videos / "text.mp4")
    (tmp_path / "cut.png").write_bytes((tmp_path / "frame.png").read_bytes()[:150])
    with pytest.raises(ValueError, match=r"cut.png: cannot be read"):
        opened.search_like(tmp_path / "cut.png")


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    Image.new("F", (4, 4)).save(tmp_path / "depth.tiff")
    for name, words in (("huge.png", "9000x9000 pixels; at most 40 million"), ("depth.tiff", "save it with 8 bits")):
        with pytest.raises(ValueError, match=rf"{name}: .*{words}"):
            read_example(tmp_path / name, own_model().config.sampling, None, None)


def test_frames_are_fitted_as_videos_are(videos):
    path = videos / "scenes.mp4"
    for sampling in (Sampling(num_frames=4, size=16), Sampling(num_frames=4, size=24, fit="squash")):
        wanted = load_clip(path, None, None, sampling, None).frames
        index = index_video(path)
        given = read_example(read_frames(index, np.arange(len(index))), sampling, None, None)
        assert given.shape == wanted.shape
        assert (given.float() - wanted.float()).abs().mean() < 8


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("shape", [(48, 64), (65, 40), (30, 90), (20, 141), (9, 3)])
def test_frames_are_scaled_before_the_square_is_cut(shape, fit):
    frames = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    smooth = np.asarray([Image.fromarray(frame).filter(ImageFilter.GaussianBlur(2)) for frame in frames])
    sampling = Sampling(num_frames=6, size=28, short_side=32, fit=fit)
    high, wide = shape
    target = (28, 28) if fit == "squash" else (round(high * 32 / min(shape)), round(wide * 32 / min(shape)))
    whole = F.interpolate(torch.from_numpy(smooth).permute(0, 3, 1, 2).float(), target, mode="bilinear", antialias=True)
    top, left = (target[0] - 28) // 2, (target[1] - 28) // 2
    wanted = whole[[0, 0, 1, 1, 2, 2], :, top : top + 28, left : left + 28].permute(0, 2, 3, 1)
    given = read_example(smooth, sampling, None, None)
    assert (given.float() - wanted).abs().mean() < 1.5


@pytest.mark.parametrize("shape", [(1, 640), (12, 4000), (3000, 4000)])
def test_a_picture_takes_little_memory_whatever_its_shape(shape, tmp_path, monkeypatch):
    made = []
    scaled = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *given, **more: made.append(scaled(*given, **more)) or made[-1])
    Image.new("RGB", shape[::-1], "red").save(tmp_path / "red.png")
    clip = read_example(tmp_path / "red.png", Sampling(), None, None)
    assert clip.shape == (32, 224, 224, 3) and (clip == torch.tensor([255, 0, 0])).all()
    assert [tensor.nbytes < 1e6 for tensor in made] == [True]


def test_queries_are_bounded(opened):
    for query, words in (("", "empty"), (" \0\n", "empty"), ("a" * (LONGEST_QUERY + 1), "at most")):
        with pytest.raises(ValueError, match=words):
            opened.search(query)
        with pytest.raises(ValueError, match=words):
            opened.nouns(query)
    for k in (0, -1, MOST_HITS + 1):
        with pytest.raises(ValueError, match="ask for 1 to 1000"):
            opened.search("a man", k)
    assert opened.search("a \ud800 man\0 😀 " + "x" * 900, 1)
    assert opened.search("'; DROP TABLE moments; --", 1)


@pytest.mark.parametrize(
    "video", ["", ".", "..", "../secret.mp4", "/etc/passwd", "link.mp4", "pipe.mp4", "a\0b", "sub/../scenes.mp4"]
)
def test_only_files_of_the_index_have_a_path(opened, video):
    with pytest.raises(KeyError):
        opened.path_of(video)
    with pytest.raises(KeyError):
        opened.ground(Moment(video, 0.0, 1.0), "circle")


def test_a_file_that_became_a_link_out_is_refused(opened, videos, tmp_path):
    assert opened.path_of("scenes.mp4") == videos / "scenes.mp4"
    (videos / "scenes.mp4").unlink()
    with pytest.raises(ValueError, match=r"scenes.mp4: .*index .* again"):
        opened.path_of("scenes.mp4")
    (videos / "scenes.mp4").symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(ValueError, match="a link out of the folder"):
        opened.path_of("scenes.mp4")
    (videos / "sub").rename(videos / "other")
    (videos / "sub").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"index .* again"):
        opened.path_of("sub/short.mp4")


def test_nouns_and_where_they_are(opened):
    assert opened.nouns("a man driving a red tractor") == ("man", "red tractor")
    assert opened.can_ground
    hit = opened.search("a red circle", 1)[0]
    heat = opened.ground(hit.moment, "circle")
    assert heat.heat.shape == (8, 16, 16) and heat.noun == "circle"
    assert (hit.moment.start <= heat.seconds).all() and (heat.seconds < hit.moment.end).all()


def test_another_model_is_refused(opened, tmp_path):
    own_model(1).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="is not the model that made"):
        Index(opened.folder, model=str(tmp_path / "other")).search("a man")
    with pytest.raises(ValueError, match="is no index; make one with"):
        Index(tmp_path)


def test_a_model_that_was_moved_is_asked_for(opened, model_folder, videos, tmp_path):
    moved = shutil.copytree(model_folder, tmp_path / "model")
    build_index(videos, tmp_path / "second", str(moved), workers=0)
    moved.rename(tmp_path / "there")
    with Index(tmp_path / "second") as index, pytest.raises(ValueError, match=r"model.* not there; .* --model FOLDER"):
        index.search("a man")
    with Index(tmp_path / "second", model=str(tmp_path / "there")) as index:
        assert index.search("a man", 1)


def test_many_threads_get_the_same_answers(opened, monkeypatch):
    loaded = []
    through = backbones.load_backbone
    monkeypatch.setattr(backbones, "load_backbone", lambda *given: loaded.append(1) or through(*given))
    wanted, answers = [], []

    def ask():
        answers.append((opened.search("a red circle", 5), opened.timeline("a blue square", "scenes.mp4")))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = (opened.search("a red circle", 5), opened.timeline("a blue square", "scenes.mp4"))
    assert answers == [wanted] * 8 and loaded == [1]


def test_an_open_index_takes_in_what_is_indexed_later(opened, videos, model_folder):
    def index_again(folder=opened.folder, **splitting):
        splitting = Splitting(**{"shortest": 1.0, "longest": 4.0} | splitting)
        build_index(videos, folder, str(model_folder), splitting=splitting, workers=0)

    opened.search("a red circle", 1)
    model = opened._backbone
    assert not opened.refresh()
    (videos / "scenes.mp4").rename(videos / "new.mp4")
    assert not opened.refresh() and len(opened.search("a red circle", 100)) == 7
    index_again()
    assert "new.mp4" not in opened.videos
    assert opened.refresh() and not opened.refresh()
    assert "new.mp4" in opened.videos and "scenes.mp4" not in opened.videos
    assert {hit.moment.video for hit in opened.search("a red circle", 100)} == set(opened.videos)
    assert opened.timeline("a red circle", "new.mp4") and opened._backbone is model

    shutil.rmtree(opened.folder)
    with pytest.raises(ValueError, match="no longer the index that was opened"):
        opened.refresh()
    index_again(longest=2.0)
    with pytest.raises(ValueError, match="no longer the index that was opened"):
        opened.refresh()
    assert opened.search("a red circle", 100)  # it goes on with what it had


def test_a_sheet_shows_what_was_found(opened, videos, tmp_path):
    hits = opened.search("a red circle", 3)
    write_sheet(opened, hits, tmp_path / "plain.png", title="a red circle $x$ ☃")
    write_sheet(opened, hits, tmp_path / "nouns.png", title="a red circle", nouns=("red circle", "square"))
    plain, nouns = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("plain", "nouns"))
    assert plain.shape[1] == nouns.shape[1] and nouns.shape[0] > 2.5 * plain.shape[0]
    pictures = [moment_frames(videos, hit.moment) for hit in hits]
    for row, frames in enumerate(pictures):  # the colours of the frames are on the sheet, in order of time
        top = 50 + 122 * row
        for number in (0, 5):
            left = 290 + 175 * number
            shown = plain[top + 20 : top + 90, left + 40 : left + 100, :3].reshape(-1, 3).mean(axis=0)
            assert np.abs(shown - frames[number].reshape(-1, 3).mean(axis=0)).max() < 60
    write_sheet(opened, [], tmp_path / "none.png", title="nothing")
    (videos / hits[0].moment.video).unlink()
    write_sheet(opened, hits, tmp_path / "gone.png", title="gone", nouns=("circle",))
    with pytest.raises(ValueError, match="at most 50"):
        write_sheet(opened, hits * 20, tmp_path / "long.png", title="long")


def moment_frames(videos, moment):
    video = index_video(videos / moment.video)
    instants = moment.start + (np.arange(6) + 0.5) * (moment.end - moment.start) / 6
    numbers = np.clip(np.searchsorted(video.seconds, instants, side="right") - 1, 0, len(video) - 1)
    return read_frames(video, numbers)
