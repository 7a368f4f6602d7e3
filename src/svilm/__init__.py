"""S-ViLM: structured video-language modeling with temporal grouping and spatial grounding.

model = svilm.load("runs/demo")                      # a run, a saved model, or a Hugging Face id
video = model.encode_video("clip.mp4")               # (1, E), unit length
text = model.encode_text(["a red circle spins"])     # (1, E)
similarity = text @ video.T
heat = model.ground("clip.mp4", "red circle").heat   # (T, H, W), 0 to 1

index = svilm.Index("videos.index")                  # made by `svilm index`
hits = index.search("a man driving a tractor")       # moments: video, start, end, score
"""

from typing import TYPE_CHECKING, Any

from svilm.version import __version__

if TYPE_CHECKING:
    from svilm.model import SViLM
    from svilm.search.index import Index

__all__ = ["Index", "SViLM", "__version__", "load"]


def load(name: str, device: str = "auto") -> "SViLM":
    """A trained model from a run folder, a saved model's folder, or a Hugging Face id; see `SViLM.from_pretrained`."""
    from svilm.model import SViLM

    return SViLM.from_pretrained(name, device)


def __getattr__(name: str) -> Any:  # heavy imports wait until they are asked for
    if name == "SViLM":
        from svilm.model import SViLM

        return SViLM
    if name == "Index":
        from svilm.search.index import Index

        return Index
    raise AttributeError(f"module 'svilm' has no attribute {name!r}")


def __dir__() -> list[str]:  # what is imported later is there too
    return sorted({*globals(), *__all__})
