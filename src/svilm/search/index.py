"""An index to ask: `svilm.Index(folder).search("a man driving a tractor")`."""

import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from svilm.data.files import examine
from svilm.data.nouns import noun_phrases
from svilm.data.words import cleaned
from svilm.search.ledger import About, Failure, read_about, read_videos, stamp_of_videos
from svilm.search.records import Filter, Hit, IndexedVideo, Moment
from svilm.search.store import Store, Vector
from svilm.search.stores import open_store

if TYPE_CHECKING:  # an index opens at once; what needs torch waits for the first query
    from svilm.backbones import Backbone
    from svilm.model import HeatMap

MOST_HITS = 1000
KEPT_QUERIES = 64
"""Queries whose vectors are kept: a page asks for the time lines of many videos with one query."""
EVERYWHERE = Filter()


class UnknownVideo(KeyError):
    """A video that an index does not have; its message is text, where that of a KeyError is a quoted key."""

    __str__ = Exception.__str__


class Index:
    """The moments of a folder of videos, made by `svilm index`, to be asked in words or by example.

    Methods may be called from several threads.  The model is loaded with the first query.  Raises ValueError for a
    folder that is no index.
    """

    def __init__(self, folder: str | Path, *, model: str | None = None, device: str = "auto") -> None:
        self.folder = Path(os.path.abspath(folder))
        about = read_about(self.folder)
        if about is None:
            raise ValueError(f"{folder} is no index; make one with `svilm index VIDEOS --model MODEL --to {folder}`")
        self._about: About = about
        self.videos: Mapping[str, IndexedVideo] = {}
        """By path from the root, with slashes."""
        self.failures: Mapping[str, str] = {}
        """Files that could not be indexed, and why."""
        self.model_name = model or about.model
        self._device, self._lock = device, Lock()
        self._backbone: Backbone | None = None
        self._texts: dict[str, Vector] = {}
        stamp = stamp_of_videos(self.folder)  # before anything is read, so that a later change is seen
        self._store: Store = open_store(about.store, self.folder, about.width, about.id)
        self._read_videos(stamp)

    @property
    def root(self) -> Path:
        """Folder of the videos."""
        return Path(self._about.root)

    @property
    def can_ground(self) -> bool:
        """Whether the model can say where a noun is: ours can, published image-text models cannot."""
        return self._about.grounds

    def __len__(self) -> int:
        return self._store.count()

    def __repr__(self) -> str:
        return f"Index({str(self.folder)!r}: {len(self)} moments of {len(self.videos)} videos, {self.model_name})"

    def search(self, query: "str | Vector", k: int = 10, where: Filter = EVERYWHERE) -> list[Hit]:
        """The ``k`` moments nearest to a description, or to a vector of ``encode_like``, the best first.

        Raises ValueError for an empty or overlong query, or ``k`` out of range.
        """
        k = _checked(k)
        return self._store.search(self._vector(query), k, where)

    def search_like(
        self,
        example: str | Path | np.ndarray,
        k: int = 10,
        where: Filter = EVERYWHERE,
        *,
        start: float | None = None,
        end: float | None = None,
    ) -> list[Hit]:
        """The ``k`` moments nearest to an example, as ``encode_like`` takes it."""
        k = _checked(k)
        return self.search(self.encode_like(example, start=start, end=end), k, where)

    def encode_like(
        self, example: str | Path | np.ndarray, *, start: float | None = None, end: float | None = None
    ) -> Vector:
        """The unit vector of a picture, a video (from ``start`` to ``end`` seconds), or RGB frames, to search with.

        Frames are uint8 (T, H, W, 3), a picture is seen as a video that stands still.  Raises ValueError or
        DecodeError for what cannot be read.
        """
        from svilm.search.examples import read_example

        with self._lock:
            backbone = self._model()
            clip = read_example(example, backbone.watching.sampling, start, end)
            vector: Vector = backbone.encode(clip[None]).vectors[0].numpy()
        return vector

    def timeline(self, query: "str | Vector", video: str) -> list[tuple[Moment, float]]:
        """All moments of a video in order of time, each with its cosine to a description or a vector.

        Raises KeyError for an unknown video.
        """
        self._known(video)
        rows = self._store.of(video)
        cosines = (rows.vectors @ self._vector(query)).clip(-1.0, 1.0)
        moments = [Moment(video, start, end) for start, end in rows.bounds.tolist()]
        return list(zip(moments, cosines.tolist(), strict=True))

    def nouns(self, query: str) -> tuple[str, ...]:
        """The noun phrases of a query, in their order."""
        return noun_phrases([cleaned(query)])[0]

    def ground(self, moment: Moment, noun: str) -> "HeatMap":
        """Where a noun is in a moment.  Raises ValueError where the model cannot say, KeyError for an unknown video."""
        path, noun = self.path_of(moment.video), cleaned(noun, "noun", "red circle")
        if not self.can_ground:
            raise ValueError(f"{self.model_name} has no group tokens, so it cannot say where {noun!r} is")
        with self._lock:
            own = self._model().own
            assert own is not None
            return own.ground(path, noun, moment.start, moment.end)

    def path_of(self, video: str) -> Path:
        """The file of a video.

        Raises KeyError for a video that is not in the index, and ValueError where the file is gone, or now is something
        else than a file below the root.
        """
        self._known(video)
        found = examine(self.root, video, follow_links=False)
        if found.reason:
            raise ValueError(f"{video}: {found.message}; index {self.root} again")
        return self.root / video

    def refresh(self) -> bool:
        """Take in what `svilm index` has changed since, and say whether it has; the model stays loaded.

        Searches that are under way end with what they began with.  Raises ValueError where another index has taken the
        place of this one.
        """
        stamp = stamp_of_videos(self.folder)
        if stamp == self._stamp:
            return False
        about = read_about(self.folder)
        if about is None or about.id != self._about.id or self._about.differs(about):
            raise ValueError(f"{self.folder} is no longer the index that was opened; open it again")
        self._store = self._store.newest()
        self._read_videos(stamp)
        return True

    def close(self) -> None:
        """Let go of files, connections and the model."""
        self._store.close()
        self._backbone = None

    def __enter__(self) -> "Index":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _known(self, video: str) -> None:
        """Raises UnknownVideo for a name that is not in the index, and says why where that is known."""
        if video in self.videos:
            return
        if video in self.failures:
            raise UnknownVideo(f"{video!r} could not be indexed ({self.failures[video]}); it has no moments")
        raise UnknownVideo(
            f"{self.folder} has no video {video!r}; give one of .videos: names relative to {self.root}, with slashes"
        )

    def _read_videos(self, stamp: tuple[int, ...]) -> None:
        known, self._stamp = read_videos(self.folder), stamp
        self.videos = {k: v for k, v in known.items() if isinstance(v, IndexedVideo)}
        self.failures = {k: v.reason for k, v in known.items() if isinstance(v, Failure)}

    def _vector(self, query: "str | Vector") -> Vector:
        if not isinstance(query, str):
            return query
        query = cleaned(query)
        with self._lock:
            if query not in self._texts:
                if len(self._texts) >= KEPT_QUERIES:
                    self._texts.pop(next(iter(self._texts)))
                self._texts[query] = self._model().encode_text([query])[0].numpy()
            return self._texts[query]

    def _model(self) -> "Backbone":
        """The model, loaded once; to be called with the lock."""
        if self._backbone is None:
            from svilm.backbones import PREFIX, load_backbone

            place = Path(self.model_name.removeprefix(PREFIX))
            if self.model_name == self._about.model and place.is_absolute() and not place.exists():
                raise ValueError(
                    f"{self.folder} was made with the model {self.model_name}, which is not there; if the model was "
                    "moved, give --model FOLDER (svilm.Index(..., model=FOLDER) in Python)"
                )
            backbone = load_backbone(self.model_name, self._device)
            if backbone.fingerprint != self._about.weights:
                raise ValueError(
                    f"{self.model_name} is not the model that made {self.folder} (weights {backbone.fingerprint}, not "
                    f"{self._about.weights}); give that one, or index the videos again into another folder"
                )
            self._backbone = backbone
        return self._backbone


def _checked(k: int) -> int:
    if not 1 <= k <= MOST_HITS:
        raise ValueError(f"k = {k}: ask for 1 to {MOST_HITS} moments")
    return k
