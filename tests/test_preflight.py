"""What is refused, or said, before the first step of a run."""

import pytest

from svilm.config import ConfigError, override
from svilm.data.manifest import Entry, Header, shared_clips, write_manifest
from svilm.data.manifest import Manifest as Opened
from svilm.preflight import (
    leaving_no_trace,
    refuse_misfits,
    refuse_too_few,
    remark_on_lists,
    scored_lists,
    seen_in_training,
)
from svilm.recipes import recipe


def listed(path, *clips, split="train", root="."):
    """A manifest of clips, each a video with its start and end."""
    entries = [Entry(str(n), video, ("a cat",), ((),), start=a, end=b) for n, (video, a, b) in enumerate(clips)]
    write_manifest(path, Header("toy", root, len(entries), split=split), entries)
    return path


def test_clips_that_overlap_with_training_clips_are_found_and_told(tmp_path):
    (tmp_path / "lists").mkdir()
    learned = listed(tmp_path / "train.jsonl", ("a.mp4", 0.0, 4.0), ("b.mp4", None, None), ("c.mp4", 2.0, None))
    clips = [("a.mp4", 4.0, 8.0), ("a.mp4", 3.9, 8.0), ("b.mp4", 9.0, 9.5), ("c.mp4", None, 2.0), ("d.mp4", None, None)]
    tested = listed(tmp_path / "lists" / "test.jsonl", *clips, split="test", root="..")
    assert shared_clips(Opened(learned), Opened(tested)) == {"1", "2"}
    run = override(recipe("tiny"), [f"data.manifest={learned}", f"retrieval.manifest={tested}"])
    assert scored_lists(run) == {"retrieval.manifest": str(tested)}
    assert seen_in_training(run) == {str(tested): 2}
    assert remark_on_lists(run, "") == "; 2 OF 5 CLIPS OF test.jsonl ARE TRAINING CLIPS"
    fair = override(run, [f"retrieval.manifest={listed(tmp_path / 'fair.jsonl', ('d.mp4', None, None), split='test')}"])
    assert remark_on_lists(fair, str(learned)) == "" and not seen_in_training(fair)
    unfair = override(fair, [f"data.manifest={tested}", "retrieval.manifest="])
    assert remark_on_lists(unfair, str(tested)) == "; WEIGHTS CHOSEN ON A TEST SPLIT; TRAINED ON A TEST SPLIT"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.sampling.num_frames=5"], "data.sampling.num_frames = 5 must be a multiple of the frames of .* = 2"),
        (
            ["data.sampling.size=60"],
            "data.sampling.size = 60 must be a multiple of the rows of model.video.tubelet = 16",
        ),
        (["data.paste.clip_window=3"], "data.sampling.num_frames = 8 must be a multiple of data.paste.clip_window = 3"),
        (["data.paste.block=3"], "data.batch over the ranks = 64 must be a multiple of data.paste.block = 3"),
        (["data.language.max_length=999"], "max_length = 999 must be at most model.text.positions = "),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, said):
    run = recipe("tiny")
    refuse_misfits(run.data, run.model)
    run = override(run, settings)
    with pytest.raises(ConfigError, match=said):
        refuse_misfits(run.data, run.model)
    if "paste" in settings[0]:
        run = override(run, ["data.paste.probability=0"])
        refuse_misfits(run.data, run.model)


def test_fewer_items_than_a_batch_are_refused():
    refuse_too_few(recipe("tiny").data, 64)
    with pytest.raises(
        ConfigError, match=r"63 items to train on, fewer than data.batch = 64; add --set data.batch=63 or"
    ):
        refuse_too_few(recipe("tiny").data, 63)


def test_a_refusal_leaves_no_trace_and_an_interruption_leaves_all(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_text("old")

    def refused(folder, error):
        with pytest.raises(error), leaving_no_trace(folder):
            folder.mkdir(exist_ok=True)
            (folder / "new").write_text("new")
            raise error

    refused(tmp_path / "there", ConfigError)
    refused(tmp_path / "new", ConfigError)
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "old"]
    refused(tmp_path / "new", KeyboardInterrupt)
    assert (tmp_path / "new" / "new").is_file()
