"""What the page is told of an index: its videos under names that can stand in an address, folders, and ideas to ask."""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath, PurePosixPath
from typing import Any

from svilm.app.refusal import Refusal
from svilm.search.index import Index
from svilm.search.records import Hit, IndexedVideo, Moment

MOST_LISTED = 200
"""Folders, and videos that could not be read, that the page lists; the numbers count all."""
MOST_IDEAS = 6
MOST_STARTS = 12
"""Videos offered to start from."""
MOST_POINTS = 240
"""Points of a time line; of longer ones each point is the best of several moments."""


class Catalogue:
    """The videos of an index by short ids, so that no path is ever part of an address.

    An id is that of one content: a file that was indexed again has another.
    """

    def __init__(self, index: Index) -> None:
        self.index, self.videos, self.failures = index, index.videos, index.failures
        self.by_id = {_id_of(video): video for video in self.videos.values()}
        self.version = f"{time.time_ns():x}"
        """Another one each time that the index was read, in all answers, so that a page sees that its own is old."""

    @property
    def model_name(self) -> str:
        """The model's name, without the folders of this machine."""
        name = self.index.model_name
        return PurePath(name).name if PurePath(name).is_absolute() else name

    def video(self, name: str) -> IndexedVideo:
        """The video with this id.  Raises a Refusal (404) for an id that the index does not have."""
        if name not in self.by_id:
            raise Refusal(404, "no such video in this index", "reload the page: the index may have changed")
        return self.by_id[name]

    def moment(self, name: str, start: float, end: float) -> Moment:
        """A stretch of the video with this id.  Raises a Refusal where it does not lie in the video."""
        video = self.video(name)
        if not 0 <= start < end <= video.duration + 1.0:
            length = f"the video lasts {video.duration:.2f} seconds"
            raise Refusal(422, f"no moment from {start:g} to {end:g} seconds; {length}", "give a start before its end")
        return Moment(video.video, start, end)

    def as_json(self, model_state: str, ideas: Sequence[str]) -> dict[str, Any]:
        """What is indexed, what could not be, and how to begin."""
        videos, failures = self.videos, self.failures
        return {
            "version": self.version,
            "moments": len(self.index),
            "videos": len(videos),
            "seconds": sum(video.duration for video in videos.values()),
            "model": self.model_name,
            "canGround": self.index.can_ground,
            "folders": [{"folder": name, "videos": count} for name, count in _folders(videos)],
            "failures": len(failures),
            "failed": [
                {"video": video, "reason": self._without_root(reason)}
                for video, reason in sorted(failures.items())[:MOST_LISTED]
            ],
            "ideas": list(ideas),
            "starts": [self.video_json(video) for video in _spread(list(videos.values()), MOST_STARTS)],
            "modelState": model_state,
        }

    def hits_json(self, hits: Iterable[Hit]) -> list[dict[str, Any]]:
        """Hits with all that their cards need; none in videos that were indexed a moment ago and are not known here."""
        return [
            {
                **self.video_json(self.videos[hit.moment.video]),
                "rank": hit.rank,
                "score": round(hit.score, 4),
                "start": hit.moment.start,
                "end": hit.moment.end,
            }
            for hit in hits
            if hit.moment.video in self.videos
        ]

    def video_json(self, video: IndexedVideo) -> dict[str, Any]:
        """A video's id, name, length and shape."""
        return {
            "id": _id_of(video),
            "video": video.video,
            "duration": video.duration,
            "width": video.width,
            "height": video.height,
        }

    def _without_root(self, reason: str) -> str:
        return reason.replace(f"{self.index.root}/", "").replace(str(self.index.root), "")


def ideas_of_names(videos: Iterable[str]) -> list[str]:
    """Queries to try, taken from the names of files that are words: "dogs/two_dogs-running.mp4"."""
    found: dict[str, None] = {}
    for video in videos:
        name = PurePosixPath(video).stem
        words = [word.lower() for word in re.findall(r"[^\W\d_]{3,}", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))]
        words = [word for word in words if word not in _NO_WORDS]
        if len(words) > 1 or (words and name.isalpha()):
            found.setdefault(" ".join(words[:6]))
        if len(found) > 50 * MOST_IDEAS:
            break
    return _spread(list(found), MOST_IDEAS)


def ideas_of_model(index: Index) -> list[str]:
    """Queries to try, of some that fit many videos: those that the model finds much more in this index than others."""
    found = {query: hits[0].score for query in COMMON if (hits := index.search(query, 1))}
    if not found:
        return []
    best, usual = max(found.values()), sorted(found.values())[len(found) // 2]
    good = [query for query, score in found.items() if best - score <= 0.5 * (best - usual)]
    return sorted(good, key=lambda query: -found[query])[:MOST_IDEAS]


COMMON = (
    "a red circle", "a green triangle spins", "a blue square moves left", "a yellow star", "a person walking",
    "people talking", "a dog running", "a cat", "cars on a road", "cooking in a kitchen", "hands holding something",
    "a ball game", "playing music", "water", "food on a plate", "children playing", "a building", "trees and sky",
    "a cartoon", "text on a screen", "the face of a man", "a sunset", "a crowd", "somebody dancing",
)  # fmt: skip
"""The first four describe the drawn world of `svilm demo`."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NO_WORDS = _words(
    "video videos vid clip clips movie movies film img image dsc mvi gopr gopro pxl mov avi mkv mpg final copy edit "
    "export untitled new test train val sample samples data trimmed untrimmed screen recording recordings screencast "
    "whatsapp output part"
)
"""Words of file names that say nothing of what is seen."""


def points(timeline: Sequence[tuple[Moment, float]]) -> list[tuple[float, float, float]]:
    """(start, end, score) along a video; neighbours share a point, with the best of their scores, if there are many."""
    size = -(-len(timeline) // MOST_POINTS) if timeline else 1
    groups = [timeline[first : first + size] for first in range(0, len(timeline), size)]
    return [
        (group[0][0].start, max(moment.end for moment, _ in group), round(max(score for _, score in group), 4))
        for group in groups
    ]


def _id_of(video: IndexedVideo) -> str:
    name = f"{video.video}\0{video.size}\0{video.modified}"
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=9).hexdigest()


def _folders(videos: Iterable[str]) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for video in videos:
        counts.update(folder.as_posix() for folder in PurePosixPath(video).parents if folder.name)
    return sorted(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_LISTED])


def _spread(items: list[Any], most: int) -> list[Any]:
    return [items[number * len(items) // most] for number in range(most)] if len(items) > most else items
