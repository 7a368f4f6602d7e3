"""`svilm demo`: the whole way from nothing to a report, on the drawn world."""

import sys
import time
from pathlib import Path

from svilm.cli.train import print_scores


def run_demo(to: Path, world: Path, *, steps: int | None, clips: int, test_clips: int) -> None:
    """Draw a world, prepare its official files, pre-train `tiny` and its contrastive baseline, evaluate, report."""
    from svilm.config import override
    from svilm.data.prepare.common import prepare
    from svilm.data.prepare import folder, msrvtt, videocc
    from svilm.data.world import draw_world
    from svilm.recipes import recipe
    from svilm.report import write_report
    from svilm.run import execute

    begun = time.monotonic()
    _say("drawing the world")
    draw_world(world, clips=clips, test_clips=test_clips)
    _say("preparing manifests from its official files")
    raise NotImplementedError
