"""What a search finds: queries with the videos that come first, as moving pictures."""

from dataclasses import dataclass

import numpy as np

from svilm.metrics.retrieval import rank_similarity
from svilm.model import SViLM
from svilm.report.common import Film, caption_of, film, open_manifest, without_workers
from svilm.run import Run, reader_of
from svilm.tasks import retrieval

TOP = 5


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
    def top(self) -> int:
        """How many results each query has; the right video may follow."""
        return TOP

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
    gallery = vectors.gallery
    first: dict[int, int] = {}  # clip -> its first caption
    for query, clip in enumerate(gallery.owner):
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
            entry = test[gallery.clips[found]]
            if found not in films:
                films[found] = film(test, entry, run.data.sampling)
            cosine = float(row[found])
            results.append(Result(films[found], place + 1, cosine, found == clip, entry.id, caption_of(entry)))
        shown.append(Query(caption_of(test[gallery.clips[clip]]), float(rank), tuple(results)))
    return Queries(tuple(shown), len(gallery.captions), len(gallery.clips))
