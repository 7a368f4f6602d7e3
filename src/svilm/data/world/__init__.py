"""The drawn world: moving coloured shapes as real mp4 files, with the annotation files of real benchmarks.

`scenes` says what happens, `shapes` and `paint` draw it, `words` tells it, `long` strings actions together,
`truth` holds what is exactly so, `write` puts it all on disk.
"""

from svilm.data.world.long import Untrimmed, untrimmed
from svilm.data.world.paint import render
from svilm.data.world.scenes import Scene, jump_cut, scene
from svilm.data.world.truth import (
    ClipTruth,
    QuestionTruth,
    SegmentTruth,
    ThingTruth,
    UntrimmedTruth,
    WorldError,
    read_jump_cuts,
    read_truth,
    read_untrimmed,
)
from svilm.data.world.words import captions, questions
from svilm.data.world.write import World, draw_world

__all__ = [
    "ClipTruth",
    "QuestionTruth",
    "Scene",
    "SegmentTruth",
    "ThingTruth",
    "Untrimmed",
    "UntrimmedTruth",
    "World",
    "WorldError",
    "captions",
    "draw_world",
    "jump_cut",
    "questions",
    "read_jump_cuts",
    "read_truth",
    "read_untrimmed",
    "render",
    "scene",
    "untrimmed",
]
