"""What a search finds: queries with the videos that come first, as moving pictures."""

from dataclasses import dataclass

import numpy as np

from svilm import draw
from svilm.data.manifest import Entry, Manifest
from svilm.metrics.retrieval import rank_similarity
from svilm.model import SViLM
from svilm.report.common import caption_of, open_manifest, still, without_workers
from svilm.run import Run, reader_of
from svilm.tasks import retrieval

TOP = 5
FILM_FRAMES, FILM_SIDE = 12, 112


@dataclass(frozen=True)
class Film:
    """The frames of a clip in one picture, side by side, to be shown one after the other."""

    uri: str
    frames: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """A video found for a query."""

    film: Film
    place: int
    similarity: float
    right: bool
    id: str
    caption: str


@dataclass(frozen=True)
class Query:
    """A caption with the videos found for it; the right one follows when it is not among the first."""

    caption: str
    rank: float
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Queries:
    """The queries shown, of how many, over how many videos."""

    shown: tuple[Query, ...]
    total: int
    videos: int

    @property
    def first(self) -> int:
        """Queries shown whose right video came first."""
        return sum(query.rank < 2 for query in self.shown)

    @property
    def among_top(self) -> int:
        """Queries shown whose right video is among the first TOP."""
        return sum(query.rank < TOP + 1 for query in self.shown)


def queries(run: Run, model: SViLM, count: int) -> Queries:
    """The first caption of each of the first ``count`` clips as a query over all clips of the test manifest.

    Raises ConfigError when the run has no test manifest, and what reading videos raises.
    """
    test = open_manifest(run.retrieval.manifest, "No test manifest in the run (retrieval.manifest; --test).")
    vectors = retrieval.encode(model.encoder, test, reader_of(without_workers(run), model.tokenizer))
    first: dict[int, int] = {}  # clip -> its first caption
    for query, clip in enumerate(vectors.owner):
        first.setdefault(clip, query)
    clips = list(first)[:count]
    similarity = vectors.similarity[[first[clip] for clip in clips]]
    ranks = rank_similarity(similarity, [[clip] for clip in clips]).ranks()
    films: dict[int, Film] = {}
    shown = []
    for clip, row, rank in zip(clips, similarity, ranks, strict=True):
        order = np.argsort(-row, kind="stable").tolist()
        places = [*range(min(TOP, len(order))), order.index(clip)]
        results = []
        for place in dict.fromkeys(places):
            found = order[place]
            entry = test[found]
            if found not in films:
                films[found] = _film(test, entry, run)
            film, cosine = films[found], float(row[found])
            results.append(Result(film, place + 1, cosine, found == clip, entry.id, caption_of(entry)))
        shown.append(Query(caption_of(test[clip]), float(rank), tuple(results)))
    return Queries(tuple(shown), len(vectors.owner), len(test))


def _film(manifest: Manifest, entry: Entry, run: Run) -> Film:
    clip = still(manifest, entry, run.data.sampling)
    frames = clip.frames.numpy()
    lasting = float(clip.seconds[-1] - clip.seconds[0]) * len(frames) / max(1, len(frames) - 1)
    frames = frames[draw.evenly(len(frames), FILM_FRAMES)]
    picture = draw.strip(draw.resized(frames, FILM_SIDE))
    return Film(draw.as_data_uri(picture), len(frames), float(np.clip(lasting, 1.0, 4.0)))
