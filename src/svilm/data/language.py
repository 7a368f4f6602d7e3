"""Text for the encoder: word pieces, noun prompts, and one packed table of the distinct texts of a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from svilm.config import Config

TEMPLATES = tuple(
    f"A {kind} of {article} {{}}."
    for kind in ("footage", "video", "portrait", "video footage")
    for article in ("a", "the", "one")
)
"""The twelve prompts for noun phrases (Table 7)."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Language(Config):
    """How captions and their nouns become word pieces."""

    max_length: int = Field(32, ge=3)
    """Word pieces of a text, [CLS] and [SEP] included; longer ones are cut (section 4.2)."""
    nouns: int = Field(2, ge=1)
    """Noun phrases per caption, K (section 4.2).  Captions with more give a random choice while training; training
    without nouns is `task.grounding` = 0."""
    no_noun: Literal["caption", "skip"] = "caption"
    """A caption without nouns stands in for its own noun, or is left out of the grounding loss."""


class Tokenizer:
    """WordPiece tokenizer: BERT's own when its files are given, else one trained on the captions.

    Wraps `tokenizers`, which needs no download and is cheap to start in worker processes.
    """

    def __init__(self, backend: Any) -> None:
        missing = [token for token in SPECIAL[:4] if backend.token_to_id(token) is None]
        if missing:
            raise ValueError(f"the tokenizer has no {', '.join(missing)}; a BERT WordPiece tokenizer is needed")
        self._backend = backend
        self._pad = backend.token_to_id("[PAD]")

    @classmethod
    def train(cls, texts: Iterable[str], size: int = 4096) -> "Tokenizer":
        """Learn at most ``size`` lower-case word pieces from ``texts``; the same texts give the same table."""
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

        def backend_of(model: Any) -> Any:
            backend = Backend(model)
            backend.normalizer = normalizers.BertNormalizer(lowercase=True)
            backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            return backend

        corpus = [*texts, *(template.format("") for template in TEMPLATES)]
        # The trainer numbers inner letters in the order of a hash map, which differs from run to run; naming
        # them beforehand makes the same texts give the same table.
        lower = normalizers.BertNormalizer(lowercase=True)
        inner = sorted({f"##{letter}" for text in corpus for letter in lower.normalize_str(text) if letter.strip()})
        learner = backend_of(models.WordPiece(unk_token="[UNK]"))
        learner.train_from_iterator(
            corpus,
            trainers.WordPieceTrainer(vocab_size=size, special_tokens=[*SPECIAL, *inner], show_progress=False),
        )
        backend = backend_of(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
        backend.add_special_tokens(list(SPECIAL))
        backend.decoder = decoders.WordPiece()
        end, start = ((token, SPECIAL.index(token)) for token in ("[SEP]", "[CLS]"))  # they are numbered first
        backend.post_processor = processors.BertProcessing(end, start)
        return cls(backend)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """From a folder with tokenizer.json or BERT's vocab.txt, or one of these files itself.

        Raises ValueError, which names the file, for one that is damaged, and FileNotFoundError.
        """
        from tokenizers import BertWordPieceTokenizer
        from tokenizers import Tokenizer as Backend

        path = Path(path)
        candidates = [path / "tokenizer.json", path / "vocab.txt"] if path.is_dir() else [path]
        for file in candidates:
            if file.is_file():
                if file.suffix == ".json":
                    try:
                        return cls(Backend.from_file(str(file)))
                    except Exception as error:  # noqa: BLE001  # tokenizers raises no other
                        raise ValueError(f"{file}: {error}; save or fetch the model again") from None
                try:
                    wordpiece = BertWordPieceTokenizer(str(file), lowercase=True)
                except TypeError as error:  # its way of saying that a special token is missing
                    raise ValueError(f"{file} is no vocabulary of BERT: {error}") from None
                return cls(Backend.from_str(wordpiece.to_str()))
        raise FileNotFoundError(f"{path}: no tokenizer.json or vocab.txt there; give the folder of a BERT tokenizer")

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, which `load` and transformers' AutoTokenizer read."""
        self._backend.save(str(Path(folder) / "tokenizer.json"))

    def __len__(self) -> int:
        size: int = self._backend.get_vocab_size()
        return size

    def __call__(
        self, texts: Sequence[str], max_length: int
    ) -> tuple[Int[Tensor, "texts length"], Bool[Tensor, "texts length"]]:
        """Texts -> word piece numbers and mask (true = real), padded to the longest text, cut at ``max_length``."""
        rows = [self._cut(encoding.ids, max_length) for encoding in self._backend.encode_batch(list(texts))]
        length = max((len(row) for row in rows), default=0)
        ids = torch.full((len(rows), length), self._pad, dtype=torch.long)
        mask = torch.zeros((len(rows), length), dtype=torch.bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = True
        return ids, mask

    @staticmethod
    def _cut(ids: list[int], max_length: int) -> list[int]:
        return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]  # keep [SEP] at the end


def noun_prompts(
    nouns: Sequence[str], count: int, rng: np.random.Generator | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """At most ``count`` of a caption's nouns, and a prompt for each.

    While training (``rng`` given) nouns are drawn without replacement and each gets a random template of
    Table 7; otherwise the first ones are taken with "A video of a {}.".
    """
    if rng is None:
        chosen = tuple(nouns[:count])
        return chosen, tuple(TEMPLATES[3].format(noun) for noun in chosen)
    order = rng.permutation(len(nouns))[:count] if len(nouns) > count else range(len(nouns))
    chosen = tuple(nouns[i] for i in order)
    return chosen, tuple(TEMPLATES[rng.integers(len(TEMPLATES))].format(noun) for noun in chosen)


@dataclass(frozen=True)
class PackedText:
    """The distinct texts of a batch with where each caption and noun prompt is found (see types.Batch)."""

    ids: Int[Tensor, "texts length"]
    mask: Bool[Tensor, "texts length"]
    caption_index: Int[Tensor, " batch"]
    noun_index: Int[Tensor, "batch nouns"]
    noun_mask: Bool[Tensor, "batch nouns"]


def pack(
    captions: Sequence[str], prompts: Sequence[Sequence[str]], tokenizer: Tokenizer, language: Language
) -> PackedText:
    """Captions (B) and noun prompts (B, at most K) -> each distinct text tokenised once.

    Missing nouns point at the caption and are masked out; a caption without any noun keeps itself as its
    only noun when `no_noun` is "caption".
    """
    number: dict[str, int] = {}
    for text in captions:
        number.setdefault(text, len(number))
    caption_index = torch.tensor([number[text] for text in captions])
    noun_index = caption_index[:, None].repeat(1, language.nouns)
    noun_mask = torch.zeros(noun_index.shape, dtype=torch.bool)
    for row, texts in enumerate(prompts):
        for column, text in enumerate(texts):
            noun_index[row, column] = number.setdefault(text, len(number))
            noun_mask[row, column] = True
        if not texts and language.no_noun == "caption":
            noun_mask[row, 0] = True
    ids, mask = tokenizer(list(number), language.max_length)
    return PackedText(ids, mask, caption_index, noun_index, noun_mask)
