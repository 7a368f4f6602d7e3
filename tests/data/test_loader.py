from dataclasses import replace

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from svilm.data.augment import CutPaste
from svilm.data.decode import index_video
from svilm.data.language import Language, Tokenizer
from svilm.data.loader import (
    Clips,
    Data,
    Items,
    Key,
    Order,
    batch_bytes,
    batches_ahead,
    evaluation_clips,
    training_batches,
)
from svilm.data.manifest import Entry, Header, LabelledBox, Manifest, ManifestError, write_manifest
from svilm.data.sample import Clip, Sampling, Views, load_clip

SMALL = Sampling(num_frames=4, size=32)


@pytest.fixture(scope="module")
def manifest(world, tmp_path_factory):
    """Twelve readable clips of the drawn world, the first one with a caption that names a side."""
    from svilm.data.world import read_truth

    records = read_truth(world)[:12]
    entries = [
        Entry(r.id, r.video, ("it moves to the left", *r.captions), ((), *r.nouns)) if i == 0
        else Entry(r.id, r.video, r.captions, r.nouns)
        for i, r in enumerate(records)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("loader") / "train.jsonl"
    write_manifest(path, Header("test", str(world), len(entries)), entries)
    return Manifest(path)


@pytest.fixture(scope="module")
def tokenizer(manifest):
    return Tokenizer.train((c for e in manifest for c in e.captions), 300)


def batches(manifest, tokenizer, data, start=0, stop=4, seed=0):
    return list(training_batches(Items(manifest, data.captions), data, tokenizer, seed=seed, start=start, stop=stop))


def same(one, other):
    return (
        one.ids == other.ids
        and one.captions == other.captions
        and one.nouns == other.nouns
        and torch.equal(one.video, other.video)
        and torch.equal(one.text_ids, other.text_ids)
        and torch.equal(one.paste.mask, other.paste.mask)
        and torch.equal(one.paste.partner, other.paste.partner)
    )


def test_batches_do_not_depend_on_workers_or_on_where_one_starts(manifest, tokenizer):
    data = Data(batch=4, workers=0, sampling=SMALL)
    alone = batches(manifest, tokenizer, data)
    two = batches(manifest, tokenizer, data.model_copy(update={"workers": 2}))
    assert all(same(a, b) for a, b in zip(alone, two, strict=True))
    late = batches(manifest, tokenizer, data, start=2)
    assert all(same(a, b) for a, b in zip(alone[2:], late, strict=True))
    assert not same(alone[0], batches(manifest, tokenizer, data, stop=1, seed=1)[0])


def test_every_epoch_sees_each_clip_once_in_a_new_order(manifest, tokenizer):
    data = Data(batch=4, workers=0, sampling=SMALL)
    found = batches(manifest, tokenizer, data, stop=6)
    epochs = [[i for b in found[first : first + 3] for i in b.ids] for first in (0, 3)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(e.id for e in manifest)
    assert epochs[0] != epochs[1]


def test_what_a_batch_holds(manifest, tokenizer):
    data = Data(batch=6, workers=0, sampling=SMALL)
    batch = batches(manifest, tokenizer, data, stop=1)[0]
    assert batch.video.shape == (6, 4, 32, 32, 3) and batch.video.dtype == torch.uint8
    assert batch.paste.mask.shape == (6, 2)
    assert len(set(batch.paste.partner.tolist())) == 6 and (batch.paste.partner != torch.arange(6)).all()
    known = {e.id: e for e in manifest}
    for i, name in enumerate(batch.ids):
        choice = known[name].captions.index(batch.captions[i])
        assert set(batch.nouns[i]) <= set(known[name].nouns[choice])


def test_without_cut_and_paste_clips_are_whole(manifest, tokenizer):
    data = Data(batch=4, workers=0, sampling=SMALL, paste=CutPaste(probability=0))
    assert batches(manifest, tokenizer, data, stop=1)[0].paste is None


def test_partners_stay_in_their_block(manifest, tokenizer):
    data = Data(batch=6, workers=0, sampling=SMALL, paste=CutPaste(block=2))
    partner = batches(manifest, tokenizer, data, stop=1)[0].paste.partner.tolist()
    assert partner == [1, 0, 3, 2, 5, 4]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_one_global_batch(world_size, monkeypatch):
    def keys_of(rank):
        monkeypatch.setattr("svilm.data.loader.rank", lambda: rank)
        monkeypatch.setattr("svilm.data.loader.world_size", lambda: world_size)
        return list(Order(100, 8, 5, 0, 30))

    shares = [keys_of(rank) for rank in range(world_size)]
    joined = [[key for share in step for key in share] for step in zip(*shares, strict=True)]
    monkeypatch.setattr("svilm.data.loader.rank", lambda: 0)
    monkeypatch.setattr("svilm.data.loader.world_size", lambda: 1)
    assert joined == list(Order(100, 8, 5, 0, 30))


def test_what_is_pasted_goes_by_the_rank_that_asked(manifest, tokenizer, monkeypatch):
    """A process that reads ahead may have been started without knowing its rank."""

    def partners(then, later):
        monkeypatch.setattr("svilm.data.loader.rank", lambda: then)
        loader = training_batches(Items(manifest), data, tokenizer, seed=0, start=0, stop=1)
        monkeypatch.setattr("svilm.data.loader.rank", lambda: later)
        return loader.collate_fn([loader.dataset[key] for key in next(iter(Order(12, 6, 0, 0, 1)))]).paste

    data = Data(batch=6, workers=0, sampling=SMALL)
    first, second, unknowing = partners(0, 0), partners(1, 1), partners(1, 0)
    assert not torch.equal(first.mask, second.mask) or not torch.equal(first.partner, second.partner)
    assert torch.equal(second.mask, unknowing.mask) and torch.equal(second.partner, unknowing.partner)


def test_batches_are_pinned_whole(manifest, tokenizer, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    batch = batches(manifest, tokenizer, Data(batch=4, workers=0, sampling=SMALL), stop=1)[0]
    assert same(pin_memory(batch), batch)  # as the DataLoader does it
    fields = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    assert len(pinned) == len(fields) + 2  # and the two of cut-and-paste


def test_no_more_frames_are_read_ahead_than_fit():
    paper = Data(batch=1024, workers=12)
    assert batch_bytes(paper, 8) == 128 * 32 * 224 * 224 * 3
    assert [batches_ahead(paper, ranks) for ranks in (1, 8, 32)] == [1, 1, 2]
    assert batches_ahead(Data(batch=64, workers=1, sampling=Sampling(num_frames=8, size=64)), 1) == 4


def test_a_batch_for_evaluation_is_handed_over_as_two_tensors(manifest):
    clips = evaluation_clips(manifest, Sampling(num_frames=4, size=16), batch=5, workers=0)
    handed = next(iter(clips._loader))
    assert sum(isinstance(part, torch.Tensor) for part in handed) == 2
    assert len(clips) == -(-len(manifest) // 5) and len(next(iter(clips))) == 5


def test_an_order_that_cannot_work_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"3 clips, fewer than data\.batch = 4; lower"):
        Order(3, 4, 0, 0, 1)
    monkeypatch.setattr("svilm.data.loader.world_size", lambda: 3)
    with pytest.raises(ValueError, match="multiple of the 3 ranks"):
        Order(100, 4, 0, 0, 1)


def test_windows_and_blocks_that_do_not_divide_are_refused(manifest, tokenizer):
    for paste, words in ((CutPaste(clip_window=3), "must divide the 4 frames"), (CutPaste(block=4), "block = 4")):
        with pytest.raises(ValueError, match=words):
            batches(manifest, tokenizer, Data(batch=6, workers=0, sampling=SMALL, paste=paste), stop=1)


@pytest.fixture
def broken(manifest, world, tmp_path):
    """The same manifest with every third video cut short."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for number, entry in enumerate(manifest):
        content = manifest.path_of(entry).read_bytes()
        (tmp_path / entry.video).write_bytes(content[: len(content) // 2] if number % 3 == 0 else content)
    path = tmp_path / "broken.jsonl"
    write_manifest(path, Header("test", str(tmp_path), len(manifest)), manifest)
    return Manifest(path)


def test_unreadable_clips_are_replaced_the_same_way_each_time_and_counted(broken, tokenizer):
    data = Data(batch=12, workers=0, sampling=SMALL)
    one, other = (batches(broken, tokenizer, data, stop=1)[0] for _ in range(2))
    assert same(one, other)
    assert len(one) == 12 and sum(one.skipped.values()) >= 4
    bad = {entry.id for number, entry in enumerate(broken) if number % 3 == 0}
    assert not bad & set(one.ids)


def test_evaluation_stops_at_an_unreadable_clip(broken):
    from svilm.data.decode import DecodeError

    with pytest.raises(DecodeError):
        list(evaluation_clips(broken, SMALL, batch=4, workers=0))


def test_nothing_but_unreadable_clips_stops_training(broken, tokenizer, tmp_path):
    for file in (tmp_path / "videos").iterdir():
        file.write_bytes(b"no video")
    with pytest.raises(ValueError, match="8 clips in a row could not be read"):
        batches(broken, tokenizer, Data(batch=4, workers=0, sampling=SMALL), stop=1)


def test_evaluation_reads_centre_frames_in_manifest_order(manifest):
    lists = list(evaluation_clips(manifest, SMALL, batch=5, workers=0))
    assert [len(clips) for clips in lists] == [5, 5, 2]
    assert [clip.entry.id for clips in lists for clip in clips] == [e.id for e in manifest]
    again = next(iter(evaluation_clips(manifest, SMALL, batch=5, workers=0)))
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(lists[0], again, strict=True))


def test_clips_that_speak_of_sides_are_never_mirrored(manifest, tokenizer, monkeypatch):
    asked = []
    monkeypatch.setattr("svilm.data.loader.load_clip", lambda *a, flip, **k: asked.append(flip) or FAKE)
    clips = Clips(Items(manifest), Data(flip=0.5, sampling=SMALL, language=Language()), 0)
    captions = [clips[Key(0, 0, position, index)].caption for position in range(30) for index in range(12)]
    for caption, flip in zip(captions, asked, strict=True):
        assert flip == (0.0 if "left" in caption or "right" in caption else 0.5)
    assert 0.0 in asked and 0.5 in asked


FAKE = Clip(torch.zeros(4, 32, 32, 3, dtype=torch.uint8), torch.zeros(4), (0.0, 0.0, 1.0, 1.0), False)


def test_expanded_items_are_all_captions_of_all_clips(manifest):
    items = Items(manifest, "expand")
    pairs = [(entry.id, number) for entry in manifest for number in range(len(entry.captions))]
    assert len(items) == len(pairs) > len(Items(manifest)) == len(manifest)
    assert [(entry.id, number) for entry, number in map(items.find, range(len(items)))] == pairs
    clips = Clips(items, Data(sampling=SMALL), 0)
    wanted = [caption for entry in manifest for caption in entry.captions]
    assert [clips[Key(0, 0, n, n)].caption for n in range(6)] == wanted[:6]


def test_the_frames_of_a_video_are_listed_once(manifest, monkeypatch):
    listed = []
    monkeypatch.setattr("svilm.data.loader.index_video", lambda path: listed.append(path) or index_video(path))
    clips = Clips(Items(manifest), Data(sampling=SMALL), 0)
    first = [clips[Key(0, 0, n, n)] for n in range(4)]
    again = [clips[Key(0, 0, n, n)] for n in range(4)]
    assert listed == [manifest.path_of(example.entry) for example in first]
    assert all(torch.equal(a.clip.frames, b.clip.frames) for a, b in zip(first, again, strict=True))


def test_all_views_of_an_entry_come_one_after_the_other(manifest):
    views = Views(clips=3).of(SMALL)
    lists = evaluation_clips(manifest, SMALL, batch=4, workers=0, indices=[5, 2], views=views)
    clips = [clip for clips in lists for clip in clips]
    assert [clip.entry.id for clip in clips] == [manifest[5].id] * 3 + [manifest[2].id] * 3
    for clip, view in zip(clips, [*views, *views], strict=True):
        alone = load_clip(manifest.path_of(clip.entry), clip.entry.start, clip.entry.end, SMALL, None, view=view)
        assert torch.equal(clip.frames, alone.frames) and torch.equal(clip.seconds, alone.seconds)
    assert not torch.equal(clips[0].frames, clips[2].frames)


def test_items_can_be_some_entries_only(manifest):
    items = Items(manifest, only=[7, 3, 4])
    assert [items.find(number)[0].id for number in range(len(items))] == [manifest[n].id for n in (7, 3, 4)]
    with pytest.raises(ValueError, match=r"data\.captions = expand"):
        Items(manifest, "expand", only=[7])


def test_a_clip_with_boxes_is_read_around_its_middle(manifest, tokenizer, tmp_path):
    """A window may reach beyond the end; the boxes are still those of the frame in its middle."""
    entry = manifest[0]
    end = index_video(manifest.path_of(entry)).duration
    boxes = (LabelledBox((0.1, 0.1, 0.5, 0.5), ("1",)),)
    late = replace(entry, id="late", start=end - 0.7, end=end + 0.4, boxes=boxes)
    same_middle = replace(entry, id="inside", start=end - 0.3, end=end, boxes=boxes)
    write_manifest(tmp_path / "m.jsonl", Header("test", str(manifest.root), 2), [late, same_middle])
    boxed = Manifest(tmp_path / "m.jsonl")
    (clips,) = evaluation_clips(boxed, SMALL, batch=2, workers=0)
    assert torch.equal(clips[0].frames, clips[1].frames) and torch.equal(clips[0].seconds, clips[1].seconds)
    batch = batches(boxed, tokenizer, Data(batch=2, workers=0, sampling=SMALL), stop=1)[0]
    assert batch.seconds.min() >= end - 0.3 - 1 / 8


@pytest.mark.parametrize("spelling", ['"captions": []', '"captions" :[ ]'])
def test_entries_without_captions_are_not_trained_on(manifest, tmp_path, spelling):
    entries = [replace(entry, captions=(), nouns=()) if n == 2 else entry for n, entry in enumerate(manifest)]
    path = tmp_path / "m.jsonl"
    write_manifest(path, Header("test", str(manifest.root), 12), entries)
    path.write_text(path.read_text().replace('"captions": []', spelling))
    found = Manifest(path)
    assert list(found.without_captions()) == [2] and list(manifest.without_captions()) == []
    for captions in ("random", "expand"):
        with pytest.raises(
            ManifestError, match=rf"m\.jsonl: line 4: {entries[2].id} has no captions to train on; prep"
        ):
            Items(found, captions)
    with pytest.raises(ManifestError, match="no captions"):
        Items(found, only=[1, 2])
    assert len(Items(found, only=[1, 3])) == 2
    assert len(next(iter(evaluation_clips(found, SMALL, batch=12, workers=0)))) == 12  # which needs none


def test_a_caption_may_speak_of_captions(manifest, tmp_path):
    entry = replace(manifest[0], captions=('it says "captions": [] here',), nouns=((),))
    write_manifest(tmp_path / "m.jsonl", Header("test", ".", 1), [entry])
    assert len(Items(Manifest(tmp_path / "m.jsonl"))) == 1
