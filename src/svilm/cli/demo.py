"""`svilm demo`: the whole way from nothing to a report, on the drawn world."""

import sys
import time
from pathlib import Path

from svilm.cli.train import print_scores


def run_demo(to: Path, world: Path, *, steps: int | None, clips: int, test_clips: int) -> None:
    """Draw a world, prepare its official files, pre-train `tiny` and its contrastive baseline, evaluate, report.

    Each part that is there already is used again, so an interrupted demo goes on where it stopped.
    """
    from svilm.config import override
    from svilm.data.prepare import folder, msrvtt, videocc
    from svilm.data.prepare.common import prepare
    from svilm.data.world import draw_world
    from svilm.recipes import recipe
    from svilm.report import write_report
    from svilm.run import execute

    begun = time.monotonic()
    _say(begun, f"drawing {clips} training and {test_clips} held-out clips in {world}")
    draw_world(world, clips=clips, test_clips=test_clips)

    _say(begun, "preparing manifests from its VideoCC, MSR-VTT and scene files")
    listings = {
        "train": videocc.listing(world / "videocc" / "video_cc_public.csv"),
        "test": msrvtt.listing(world / "msrvtt", split="test"),
        "scenes": folder.listing(world / "scenes.csv", split="test"),
    }
    manifests = {name: world / f"{name}.jsonl" for name in listings}
    for name, listing in listings.items():
        print(prepare(listing, to=manifests[name], videos=world / "videos"), file=sys.stderr)

    folders = {"tiny": to, "tiny-contrastive": to.with_name(to.name + "-contrastive")}
    scores: dict[str, dict[str, float]] = {}
    for name, place in folders.items():
        run = override(
            recipe(name),
            [
                f"data.manifest={manifests['train'].absolute()}",
                f"retrieval.manifest={manifests['test'].absolute()}",
                f"temporal.manifest={manifests['scenes'].absolute()}",
                *([] if steps is None else [f"training.steps={steps}"]),
            ],
        )
        _say(begun, f"training {name} for {run.training.steps} steps of {run.data.batch} clips in {place}")
        scores[name] = execute(run, place)

    _say(begun, "writing the report")
    page = write_report(to, baseline=folders["tiny-contrastive"])
    print_scores(scores["tiny"])
    _say(begun, f"done; open {page}")


def _say(begun: float, text: str) -> None:
    minutes, seconds = divmod(round(time.monotonic() - begun), 60)
    print(f"[{minutes:2}:{seconds:02}] {text}", file=sys.stderr, flush=True)
