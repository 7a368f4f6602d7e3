"""Where the weights and word pieces come from that a run starts with."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from svilm.config import Config, ConfigError
from svilm.data.language import Tokenizer
from svilm.data.manifest import Manifest
from svilm.model import SViLM
from svilm.models.dual import DualEncoder, DualEncoderConfig
from svilm.models.weights import load_text, load_video, text_config_of, video_config_of
from svilm.runtime import derive_seed, rank, seed_everything


class Start(Config):
    """Weights and word pieces to start from; empty means from scratch."""

    model: str = ""
    """Pre-trained S-ViLM: a run, a saved model, or an id on the hub; brings its own shape and word pieces."""
    video: str = ""
    """ViViT or VideoMAE in Hugging Face format: a folder, or an id on the hub."""
    text: str = ""
    """BERT in Hugging Face format: a folder, or an id on the hub."""
    tokenizer: str = ""
    """Folder (or id) with tokenizer.json or vocab.txt; empty takes that of `text`, or trains one on the captions."""


def fitted(model: DualEncoderConfig, start: Start, vocabulary: int) -> DualEncoderConfig:
    """The shape of the weights that a run starts from, and of the word pieces where these are its own.

    Raises ConfigError, which names the setting, for what cannot be found or read, and for a ``vocabulary`` of more word
    pieces than the text encoder that it starts from knows.
    """
    if start.model:
        if start.video or start.text or start.tokenizer:
            raise ConfigError("start.model brings the whole model; leave start.video, text and tokenizer empty")
        return _model_of(start).config.model
    video, text = model.video, model.text.model_copy(update={"vocabulary": vocabulary})
    if start.video:
        with _of_setting("start.video"):
            video = video_config_of(start.video, video)
    if start.text:
        with _of_setting("start.text"):
            text = text_config_of(start.text, model.text)
        if vocabulary > text.vocabulary:
            setting = "start.tokenizer" if start.tokenizer else "start.text"
            raise ConfigError(
                f"{setting}: {start.tokenizer or start.text} has {vocabulary} word pieces, more than the "
                f"{text.vocabulary} that the text encoder start.text = {start.text} knows; name those that belong to "
                "it, or leave start.tokenizer empty to take those in its folder"
            )
    return model.model_copy(update={"video": video, "text": text})


def initial_encoder(model: DualEncoderConfig, start: Start, seed: int) -> DualEncoder:
    """The dual encoder before the first step: seeded, with other weights where ``start`` names them.

    ``start.model`` brings all of them.  Raises as ``fitted`` does.
    """
    seed_everything(derive_seed(seed, "weights"))
    encoder = DualEncoder(model)
    if start.model:
        encoder.load_state_dict(_model_of(start).encoder.state_dict())
    for part, load in (("video", load_video), ("text", load_text)):
        source = getattr(start, part)
        if source:
            with _of_setting(f"start.{part}"):
                report = load(getattr(encoder, part), source)
            if rank() == 0:
                print(report, file=sys.stderr)
    return encoder


def tokenizer_of(start: Start, manifest: Manifest, vocabulary: int) -> Tokenizer:
    """The word pieces of the model or text encoder started from, or at most so many new ones of the captions.

    Raises as ``fitted`` does.
    """
    if start.model:
        return _model_of(start).tokenizer
    source = start.tokenizer or start.text
    if source:
        from svilm.hub import local_folder

        path = Path(source)
        with _of_setting("start.tokenizer" if start.tokenizer else "start.text"):
            return Tokenizer.load(path if path.is_file() else local_folder(source, ["tokenizer.json", "vocab.txt"]))
    captions = (caption for entry in manifest for caption in entry.captions)
    return Tokenizer.train(captions, vocabulary)


def _model_of(start: Start) -> SViLM:
    with _of_setting("start.model"):
        return SViLM.from_pretrained(start.model, "cpu")


@contextmanager
def _of_setting(name: str) -> Iterator[None]:
    """Errors inside name the setting that led to them."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ConfigError(f"{name}: {error}") from None
