"""The truth of a drawn world in the annotation files of the real benchmarks, read like the released ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from svilm.data.world.files import write_csv, write_json, write_json_lines, write_text
from svilm.data.world.labelled import write_activitynet, write_ava, write_hmdb51, write_ucf101
from svilm.data.world.scenes import MOTIONS
from svilm.data.world.truth import ClipTruth, UntrimmedTruth

README = """\
# A drawn world

Moving coloured shapes, drawn by `svilm world` with the settings in `world.json`, from which all of it
follows.

- `videos/video{N}.mp4`: short clips of one or two shots.  Training clips count from 0, test clips from
  100000.
- `jump_cuts/cut{N}.mp4`: more held-out clips, each of two shots before the very same background, with other
  things in the second.  Who tells these shots apart has looked at the things.
- `untrimmed/*.mp4`: long videos of several actions with gaps between them.
- `truth.jsonl`: the exact truth of each clip: objects, noun phrases, a box for each frame (xyxy in [0, 1],
  null where unseen), scene changes, questions with answers, and the action, which is the motion of the
  largest object.
- `jump_cuts/truth.jsonl`: the same of the jump cuts.
- `untrimmed/truth.jsonl`: the same of the long videos, with labelled segments; every second video is for
  testing.

In Python: `svilm.data.world.read_truth(folder)`, `read_jump_cuts(folder)` and `read_untrimmed(folder)`.

All else says the same in the files of public benchmarks, for `svilm prepare`.

## Captions (videos in `videos`)

- `videocc/video_cc_public.csv`: the training clips in VideoCC's form, without a header: video, start and
  end in microseconds, caption.
- `msrvtt/MSRVTT_data.json`: all clips in MSR-VTT's form, with five wordings of each caption.
- `msrvtt/MSRVTT_train.9k.csv`: ids of the training clips.  They are the clips of VideoCC's list, because
  here pre-training and fine-tuning may share them; the test clips are in neither.
- `msrvtt/MSRVTT_JSFUSION_test.csv`: one query for each test clip.  It tells all that its clip shows, and no
  other test clip shows just that.
- `scenes.csv`: the test clips with a scene change; `scene_changes` are seconds, separated by `;`.
- `jump_cuts.csv`: the jump cuts in the same form (videos in `jump_cuts`).

## Questions (videos in `videos`)

- `msrvtt_qa/train_qa.json`, `msrvtt_qa/val_qa.json`, `msrvtt_qa/test_qa.json`: MSRVTT-QA's form.  Those of
  every tenth training clip are for validation.
- `msrvtt_qa/train.jsonl`, `msrvtt_qa/val.jsonl`, `msrvtt_qa/test.jsonl`: the same in ClipBERT's form.
- `msrvtt_qa/train_ans2label.json`: the answers that occur in training, numbered.

## Looks (videos in `ucf101`, the same clips in folders by class)

- `ucf101/classInd.txt`: the colours as classes ("RedThing"); a clip's class is that of the thing whose motion
  is its action.
- `ucf101/trainlist01.txt`, `ucf101/testlist01.txt`: the training and the test clips.
- `ucf101/trainlist02.txt`, `ucf101/testlist02.txt`, `ucf101/trainlist03.txt`, `ucf101/testlist03.txt`: two
  more folds, which test on a quarter of the training clips each, and train on the test clips too.  Who has
  pre-trained on the training clips has seen these, though not their labels.

## Motions (videos in `hmdb51`, the same clips in folders by class)

- `hmdb51/testTrainMulti_7030_splits/{class}_test_split{1,2,3}.txt`: HMDB51's form.  The classes are the ten
  motions, a clip's class its action; this takes longer to learn than looks do.  Fold 1 tests on the test
  clips.  File names have brackets and signs, as those of HMDB51 do.

## Segments (videos in `untrimmed`)

- `activitynet/activity_net.v1-3.min.json`: ActivityNet's form.  The videos for testing are the validation
  subset.  A segment's label is the colour of the largest thing that acts in it ("red acts"): a
  frozen encoder that was trained for minutes knows colours, and not yet motions.

## Boxes (videos in `videos`)

AVA's form, one keyframe a second.  Seconds count from 900, as in AVA's own videos: 0901 is the middle of a
clip of two seconds.  Every object is a person, and its motion the action.

- `ava/ava_train_v2.2.csv`, `ava/ava_val_v2.2.csv`: boxes with actions; the test clips are the val split.
- `ava/ava_train_excluded_timestamps_v2.2.csv`, `ava/ava_val_excluded_timestamps_v2.2.csv`: keyframes next
  to a scene change, which are not used.
- `ava/ava_action_list_v2.2_for_activitynet_2019.pbtxt`: the ten motions.
- `ava/ava_train_predicted_boxes.csv`, `ava/ava_val_predicted_boxes.csv`: what a detector might find, true
  boxes a little off, some missed and some invented, with scores in the last column.
"""

FOLDERS = (
    "videos", "jump_cuts", "untrimmed", "videocc", "msrvtt", "msrvtt_qa", "ucf101", "hmdb51", "activitynet", "ava",
)  # fmt: skip


def write_annotations(
    folder: Path, records: Sequence[ClipTruth], cuts: Sequence[ClipTruth], long: Sequence[UntrimmedTruth], seed: int
) -> None:
    """All annotation files of a world, and its README, next to the videos; ``seed`` is that of the world."""
    train = [record for record in records if record.split == "train"]
    test = [record for record in records if record.split == "test"]
    write_csv(folder / "videocc" / "video_cc_public.csv", [_videocc_row(record) for record in train])
    write_json(folder / "msrvtt" / "MSRVTT_data.json", _msrvtt_data(records))
    write_csv(folder / "msrvtt" / "MSRVTT_train.9k.csv", [("video_id",), *((r.id,) for r in train)])
    queries = [(f"ret{k}", r.id.replace("video", "msr"), r.id, r.captions[0]) for k, r in enumerate(test)]
    header = ("key", "vid_key", "video_id", "sentence")
    write_csv(folder / "msrvtt" / "MSRVTT_JSFUSION_test.csv", [header, *queries])
    _write_scenes(folder / "scenes.csv", [record for record in test if record.scene_changes])
    _write_scenes(folder / "jump_cuts.csv", cuts)
    _write_questions(folder / "msrvtt_qa", records)
    write_ucf101(folder, records)
    write_hmdb51(folder, records)
    write_activitynet(folder, long)
    write_ava(folder, records, seed)
    write_text(folder / "README.md", README)


def _videocc_row(record: ClipTruth) -> tuple[object, ...]:
    return f"{record.id}.mp4", 0, round(record.duration * 1_000_000), record.captions[0]


def _write_scenes(path: Path, records: Sequence[ClipTruth]) -> None:
    """Clips with scene changes, as `svilm prepare folder` reads them."""
    rows = [
        (f"{record.id}.mp4", 0.0, record.duration, record.captions[0], ";".join(map(str, record.scene_changes)))
        for record in records
    ]
    write_csv(path, [("video", "start", "end", "caption", "scene_changes"), *rows])


def _msrvtt_data(records: Sequence[ClipTruth]) -> dict[str, Any]:
    """The layout of the released file; the category is the number of the action label."""
    videos, sentences = [], []
    for record in records:
        number = int(record.id.removeprefix("video"))
        videos.append(
            {
                "category": MOTIONS.index(record.action),
                "url": record.video,
                "video_id": record.id,
                "start time": 0.0,
                "end time": record.duration,
                "split": record.split,
                "id": number,
            }
        )
        sentences += [
            {"caption": caption, "video_id": record.id, "sen_id": number * len(record.captions) + k}
            for k, caption in enumerate(record.captions)
        ]
    return {"videos": videos, "sentences": sentences}


def _write_questions(root: Path, records: Sequence[ClipTruth]) -> None:
    """MSRVTT-QA in the original form and in ClipBERT's, with the answers of the training part."""
    rows = [(_part(record), row) for record in records for row in _questions(record)]
    for part in ("train", "val", "test"):
        of_part = [row for name, row in rows if name == part]
        original = [{name: row[name] for name in row if name != "answer_type"} for row in of_part]
        write_json(root / f"{part}_qa.json", [{"id": _number(part, k), **row} for k, row in enumerate(original)])
        names = ("answer", "question", "video_id", "answer_type")
        clipbert = ({**{name: row[name] for name in names}, "video_id": f"video{row['video_id']}"} for row in of_part)
        write_json_lines(root / f"{part}.jsonl", clipbert)
    answers = sorted({row["answer"] for name, row in rows if name == "train"})
    write_json(root / "train_ans2label.json", {answer: k for k, answer in enumerate(answers)})


def _part(record: ClipTruth) -> str:
    tenth = int(record.id.removeprefix("video")) % 10 == 9
    return "val" if tenth and record.split == "train" else record.split


def _number(part: str, row: int) -> int:
    """Number of a question: no two of all parts have the same, however many there are."""
    return 3 * row + ("train", "val", "test").index(part)


def _questions(record: ClipTruth) -> Iterator[dict[str, Any]]:
    for asked in record.questions:
        yield {
            "category_id": MOTIONS.index(record.action),
            "video_id": int(record.id.removeprefix("video")),
            "question": asked.question,
            "answer": asked.answer,
            "answer_type": asked.answer_type,
        }
