"""Text-video retrieval without further training (section 4.1, Table 1)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from pydantic import Field

from svilm.config import Config, ManifestFile
from svilm.data.loader import StillClip
from svilm.data.manifest import Manifest
from svilm.metrics.retrieval import (
    Ranking,
    Ties,
    chance,
    dual_softmax,
    inverted,
    rank_embeddings,
    rank_similarity,
)
from svilm.models.dual import DualEncoder
from svilm.tasks.common import Gallery, Reader, encode_clips, encode_texts, gallery_of
from svilm.types import Scores, VideoFeatures

DEEPEST = 10
"""Of R@1, R@5 and R@10."""


class Retrieval(Config):
    """What is retrieved and how ties are counted."""

    manifest: ManifestFile = ""
    """Test manifest; every caption is a query, every clip an item.  Empty: no retrieval evaluation."""
    ties: Ties = "average"
    """Items of exactly equal similarity: the expected rank over their orders, or all of them behind, or ahead."""
    dual_softmax: float = Field(0.0, ge=0)
    """Also report dual softmax at this temperature, as separate transductive rows; 0 leaves them out."""


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of a test set: clips (N, E) and all their captions (Q, E), with what they are."""

    clips: Float[np.ndarray, "clips common"]
    captions: Float[np.ndarray, "queries common"]
    gallery: Gallery

    @property
    def similarity(self) -> Float[np.ndarray, "queries clips"]:
        """Cosines of every caption and every clip, summed in float64 so that equal vectors tie."""
        product = self.captions.astype(np.float64) @ self.clips.astype(np.float64).T
        return product.astype(np.float32)


def encode(model: DualEncoder, manifest: Manifest, reader: Reader) -> Vectors:
    """Vectors of all clips, each seen once in its middle, and of all captions of a test manifest.

    Raises ManifestError for what has no caption, before anything is encoded.
    """
    gallery = gallery_of(manifest)
    clips = encode_clips(model, manifest, reader, _embedding, "encoding clips", only=gallery.clips)
    return Vectors(np.stack(clips), encode_texts(model, gallery.captions, reader).numpy(), gallery)


def score(vectors: Vectors, manifest: Manifest, config: Retrieval, sampling: str) -> Scores:
    """Recall and ranks in both directions beside chance; names begin with ``retrieval/``."""
    positives = [[clip] for clip in vectors.gallery.owner]
    back = inverted(positives, len(vectors.clips))
    found = rank_embeddings(vectors.captions, vectors.clips, positives)
    found_back = rank_embeddings(vectors.clips, vectors.captions, back)
    metrics = _both("retrieval", found, found_back, config.ties)
    if config.dual_softmax:  # needs all similarities at once
        reranked = dual_softmax(vectors.similarity, config.dual_softmax).astype(np.float64)
        found, found_back = rank_similarity(reranked, positives), rank_similarity(reranked.T, back)
        metrics |= _both("retrieval_transductive", found, found_back, config.ties)
    metrics |= _named("retrieval_chance/text_to_video", chance(len(positives), len(back), positives), config.ties)
    metrics |= _named("retrieval_chance/video_to_text", chance(len(back), len(positives), back), config.ties)
    twice = len(manifest) - len(vectors.clips)
    remarks = f"; {twice} rows of clips that other rows have joined to them" if twice else ""
    if len(vectors.clips) <= DEEPEST:
        remarks += f"; ONLY {len(vectors.clips)} CLIPS, OF WHICH ANY MODEL HAS THE RIGHT ONE AMONG THE FIRST {DEEPEST}"
    protocol = f"{manifest.header.protocol or manifest.header.source}{remarks}; {sampling}; ties: {config.ties}"
    return Scores(metrics, scored=len(manifest), official=manifest.header.official, protocol=protocol)


def _embedding(clip: StillClip, features: VideoFeatures, row: int) -> np.ndarray:
    vector: np.ndarray = features.embedding[row].float().cpu().numpy()
    return vector


def _both(name: str, text_to_video: Ranking, video_to_text: Ranking, ties: Ties) -> dict[str, float]:
    return _named(f"{name}/text_to_video", text_to_video, ties) | _named(f"{name}/video_to_text", video_to_text, ties)


def _named(prefix: str, ranking: Ranking, ties: Ties) -> dict[str, float]:
    return {f"{prefix}/{metric}": value for metric, value in ranking.metrics(ties).items()}
