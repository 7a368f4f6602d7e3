"""`svilm demo`: the whole way from nothing to a report and an index to search, on the drawn world."""

import os
import shutil
import sys
import time
from pathlib import Path

from svilm.cli.train import print_scores


def run_demo(to: Path, world: Path, *, steps: int | None, clips: int, test_clips: int) -> None:
    """Draw a world, prepare its official files, pre-train `tiny` and its contrastive baseline, evaluate, report, index.

    Each part that is there already is used again, so an interrupted demo goes on where it stopped.
    """
    from svilm.config import override
    from svilm.data.prepare import folder, msrvtt, videocc
    from svilm.data.prepare.common import prepare
    from svilm.data.world import draw_world
    from svilm.recipes import recipe
    from svilm.report import write_report
    from svilm.run import execute
    from svilm.search.build import build_index

    begun = time.monotonic()
    _say(begun, f"drawing {clips} training and {test_clips} held-out clips in {world}")
    draw_world(world, clips=clips, test_clips=test_clips)

    _say(begun, "preparing manifests from its VideoCC, MSR-VTT and scene files")
    listings = {
        "train": videocc.listing(world / "videocc" / "video_cc_public.csv"),
        "test": msrvtt.listing(world / "msrvtt", split="test"),
        "scenes": folder.listing(world / "scenes.csv", split="test"),
        "jump_cuts": folder.listing(world / "jump_cuts.csv", split="test"),
    }
    manifests = {name: world / f"{name}.jsonl" for name in listings}
    for name, listing in listings.items():
        videos = world / ("jump_cuts" if name == "jump_cuts" else "videos")
        print(prepare(listing, to=manifests[name], videos=videos), file=sys.stderr)

    folders = {"tiny": to, "tiny-contrastive": to.with_name(to.name + "-contrastive")}
    scores: dict[str, dict[str, float]] = {}
    for name, place in folders.items():
        run = override(
            recipe(name),
            [
                f"data.manifest={manifests['train'].absolute()}",
                f"retrieval.manifest={manifests['test'].absolute()}",
                f"temporal.manifest={manifests['scenes'].absolute()}",
                f"temporal.pasted={manifests['test'].absolute()}",
                f"temporal.jump_cuts={manifests['jump_cuts'].absolute()}",
                f"grounding.manifest={manifests['test'].absolute()}",
                *([] if steps is None else [f"training.steps={steps}"]),
            ],
        )
        _say(begun, f"training {name} for {run.training.steps} steps of {run.data.batch} clips in {place}")
        scores[name] = execute(run, place)

    _say(begun, "writing the report")
    page = write_report(to, baseline=folders["tiny-contrastive"])
    print_scores(scores["tiny"])

    videos, index = world / "to_search", to / "index"
    _say(begun, f"indexing the held-out clips and the long videos in {index}")
    _link_videos(manifests["test"], world / "untrimmed", videos)
    print(build_index(videos, index, str(to)), file=sys.stderr)
    _say(begun, f"done; open {page}")
    print(f'\nsearch the videos:  svilm search {index} "a red circle moves right"')
    print(f"or in the browser:  svilm app {index}")


def _link_videos(manifest: Path, untrimmed: Path, folder: Path) -> None:
    """A folder with what is worth searching of the world: clips that no training has seen, and all long videos."""
    from svilm.data.manifest import Manifest

    held_out = Manifest(manifest)
    named = {"clips": [held_out.path_of(entry) for entry in held_out], "long": sorted(untrimmed.glob("*.mp4"))}
    for name, paths in named.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in paths:
            link = folder / name / path.name
            if not link.exists():
                try:
                    os.link(path, link)
                except OSError:  # another disk, or one that knows no links
                    shutil.copy2(path, link)


def _say(begun: float, text: str) -> None:
    minutes, seconds = divmod(round(time.monotonic() - begun), 60)
    print(f"[{minutes:2}:{seconds:02}] {text}", file=sys.stderr, flush=True)
