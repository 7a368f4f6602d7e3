"""What svilm costs and how far it is from what is possible: `svilm bench`, rows that are measured, never remembered.

Each subject is a module of this folder with a function `rows(how)`.  A row sets ours beside a peer that does the same
work in the same process, so that a busy machine hurts both alike.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module

from svilm.bench.frame import How, Row, not_measured

SUBJECTS = {
    "machine": "what this machine can do: matrix products, memory",
    "step": "where the time of a training step goes, clips per second, share of the machine's peak",
    "encoder": "the video encoder against ViViT, VideoMAE and the encoders of other projects",
    "losses": "the grounding loss against its direct form, time and memory",
    "decode": "reading clips against other libraries",
    "shards": "training clips from packed shards, ours and video2dataset's, against the original files",
    "manifest": "an opened list of clips against a list of dictionaries, memory and time",
    "text": "captions and noun prompts in one packed batch against padded ones",
    "retrieval": "ranking large galleries in bounded memory against a whole matrix and a sort",
    "search": "finding moments among 50,000: exact and approximate search, recall, against numpy",
    "gtad": "a training step of temporal localization against its usual form",
    "roi": "RoIAlign against its usual form",
    "gpu": "a training step of the paper's size on a GPU",
    "growth": "how time and memory grow with frames, batch, groups, processes and gallery",
}
"""Each subject, the name of its module, with what it measures; `svilm bench` runs them in this order."""


def measure(names: Sequence[str], how: How) -> Iterator[Row]:
    """The rows of the subjects called ``names``, or of all, one by one as they are measured.

    A subject that lacks something to run (a library, a peer's code, a device) yields rows that say so; one that
    fails with a missing import, or one of whose processes is killed, becomes such a row itself.  Raises ValueError
    for a name that is no subject.
    """
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        raise ValueError(f"svilm bench: no subject {', '.join(unknown)}; choose from {', '.join(SUBJECTS)}")
    for name in names or SUBJECTS:
        try:
            yield from import_module(f"svilm.bench.{name}").rows(how)
        except ImportError as error:
            yield not_measured(name, str(error))
        except BrokenProcessPool:
            yield not_measured(name, "a process that measured it was killed, perhaps for want of memory")
