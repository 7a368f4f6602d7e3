"""One short file per public dataset: its official annotation files to a manifest (``common.prepare``)."""

from typing import Literal

Check = Literal["none", "index", "full"]
"""How closely each video is looked at: not at all; its frames listed and the first decoded; all decoded."""
Split = Literal["train", "val", "test"]
"""What a list of clips is used for; all but "train" must be complete."""
Protocol = Literal["msrvtt-1ka-9k", "msrvtt-1ka-7k", "msrvtt-full"]
"""The ways in which MSR-VTT is split."""
