"""The truth of a drawn world in the annotation files of the real benchmarks, read like the released ones."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from svilm.data.world.scenes import MOTIONS
from svilm.data.world.truth import ClipTruth, write_json, write_text

README = """\
# A drawn world

Moving coloured shapes, drawn by `svilm world` with the settings in `world.json`, from which all of it
follows.

- `videos/video{N}.mp4`: short clips of one or two shots.  Training clips count from 0, test clips from
  100000.
- `videocc/video_cc_public.csv`: the training clips in VideoCC's form, without a header: video, start and
  end in microseconds, caption.
- `msrvtt/MSRVTT_data.json`: all clips in MSR-VTT's form, with five wordings of each caption.
- `msrvtt/MSRVTT_train.9k.csv`: ids of the training clips.  They are the clips of VideoCC's list, because
  here pre-training and fine-tuning may share them; the test clips are in neither.
- `msrvtt/MSRVTT_JSFUSION_test.csv`: one query for each test clip.  It tells all that its clip shows, and no
  other test clip shows just that.
- `scenes.csv`: the test clips with a scene change; `scene_changes` are seconds, separated by `;`.
- `truth.jsonl`: the exact truth of each clip: objects, noun phrases, a box for each frame (xyxy in [0, 1],
  null where unseen), scene changes, questions with answers, and the action, which is the motion of the
  largest object.
- `untrimmed/*.mp4` and `untrimmed/truth.jsonl`: long videos with labelled segments, every second one for
  testing.

In Python: `svilm.data.world.read_truth(folder)` and `read_untrimmed(folder)`.
"""


def write_annotations(folder: Path, records: Sequence[ClipTruth]) -> None:
    """All annotation files of a world, and its README, next to the videos."""
    train = [record for record in records if record.split == "train"]
    test = [record for record in records if record.split == "test"]
    _write_csv(folder / "videocc" / "video_cc_public.csv", [_videocc_row(record) for record in train])
    write_json(folder / "msrvtt" / "MSRVTT_data.json", _msrvtt_data(records))
    _write_csv(folder / "msrvtt" / "MSRVTT_train.9k.csv", [("video_id",), *((r.id,) for r in train)])
    queries = [(f"ret{k}", r.id.replace("video", "msr"), r.id, r.captions[0]) for k, r in enumerate(test)]
    header = ("key", "vid_key", "video_id", "sentence")
    _write_csv(folder / "msrvtt" / "MSRVTT_JSFUSION_test.csv", [header, *queries])
    changing = [_scene_row(record) for record in test if record.scene_changes]
    _write_csv(folder / "scenes.csv", [("video", "start", "end", "caption", "scene_changes"), *changing])
    write_text(folder / "README.md", README)


def _videocc_row(record: ClipTruth) -> tuple[object, ...]:
    return f"{record.id}.mp4", 0, round(record.duration * 1_000_000), record.captions[0]


def _scene_row(record: ClipTruth) -> tuple[object, ...]:
    changes = ";".join(str(seconds) for seconds in record.scene_changes)
    return f"{record.id}.mp4", 0.0, record.duration, record.captions[0], changes


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


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(rows)
