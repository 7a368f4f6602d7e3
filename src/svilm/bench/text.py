"""Captions and noun prompts encoded as training does, against the usual way: each padded, each as often as it comes."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from svilm.bench.frame import How, Row, compare
from svilm.data.language import Language, PackedText, Tokenizer, noun_prompts, pack
from svilm.models.dual import SIZES, DualEncoder
from svilm.tasks.common import encode_packed

WORDS = 2000
"""Made-up words, of which a few make most of the text, as in any language."""


def rows(how: How) -> Iterator[Row]:
    """Forward and backward of the text encoder on the texts of 64 clips, at the size `small`."""
    clips, language = (4 if how.quick else 64), Language()
    captions, nouns = made_up_captions(clips, language.nouns)
    tokenizer = Tokenizer.train([*captions, *itertools.chain(*nouns)], SIZES["small"].text.vocabulary)
    rng = np.random.default_rng(0)
    prompts = [noun_prompts(each, language.nouns, rng)[1] for each in nouns]
    packed = pack(captions, prompts, tokenizer, language)
    torch.manual_seed(0)
    config = SIZES["tiny" if how.quick else "small"]
    fitting = config.text.model_copy(update={"vocabulary": len(tokenizer), "dropout": 0.0})
    model = DualEncoder(config.model_copy(update={"text": fitting}))
    ours = step(model, lambda: as_in_training(model, packed))
    distinct = len(packed.ids)
    name = f"text encoder, {clips} captions and {clips * language.nouns} noun prompts ({distinct} distinct)"
    for padding, words in ((0, "padded to the longest of its kind"), (language.max_length, "padded to the limit")):
        tables = [padded(tokenizer, texts, padding) for texts in (captions, list(itertools.chain(*prompts)))]
        peer = step(model, partial(apart, model, tables))
        torch.testing.assert_close(ours(), peer(), atol=1e-4, rtol=0)
        yield compare(f"{name}, packed, against apart and {words}", ours, peer, how)


def made_up_captions(count: int, nouns: int) -> tuple[list[str], list[tuple[str, ...]]]:
    """Captions of 4 to 20 words whose frequencies fall as one over the rank, and some words of each as its nouns."""
    rng = np.random.default_rng(0)
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprst", "aeiou")]
    words = ["".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(WORDS)]
    shares = 1 / np.arange(1, WORDS + 1)
    drawn = [rng.choice(words, rng.integers(4, 21), p=shares / shares.sum()).tolist() for _ in range(count)]
    return [" ".join(each) for each in drawn], [tuple(each[-nouns:]) for each in drawn]


def as_in_training(model: DualEncoder, packed: PackedText) -> Tensor:
    """Vectors of all captions, then of all noun prompts."""
    found = encode_packed(model, packed.ids, packed.mask)
    return torch.cat([found[packed.caption_index], found[packed.noun_index].flatten(0, 1)])


def padded(tokenizer: Tokenizer, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
    """Word pieces and mask of each text, repeated ones too, filled up to ``length`` or to the longest."""
    ids, mask = tokenizer(texts, length or Language().max_length)
    return tuple(torch.nn.functional.pad(each, (0, max(0, length - ids.shape[1]))) for each in (ids, mask))  # type: ignore[return-value]


def apart(model: DualEncoder, tables: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Vectors of the texts of all tables, each table encoded on its own."""
    return torch.cat([model.encode_text(*table).embedding for table in tables])


def step(model: DualEncoder, encode: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Forward and backward; a call returns the vectors."""

    def work() -> Tensor:
        model.zero_grad()
        found = encode()
        found.sum().backward()
        return found.detach()

    return work
