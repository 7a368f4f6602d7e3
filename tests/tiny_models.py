"""Very small models to use, with random weights: our own, and published image-text checkpoints."""

from pathlib import Path

import torch

from small import model as small_model
from svilm.data.language import Language, Tokenizer
from svilm.data.sample import Sampling
from svilm.model import ModelConfig, SViLM

WORDS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "red", "blue", "circle", "square", "man", "tractor")
SIZE = 16


def own_model(seed: int = 0) -> SViLM:
    """Our own, of 8 frames of 16x16."""
    encoder = small_model(seed)
    sampling = Sampling(num_frames=8, size=SIZE, short_side=SIZE)
    config = ModelConfig(model=encoder.config, sampling=sampling, language=Language(max_length=12))
    return SViLM(encoder, Tokenizer.train(["a red circle", "a blue square"], 50), config)


def write_checkpoint(folder: Path, kind: str, seed: int = 0) -> Path:
    """A published checkpoint of ``kind`` clip, siglip or siglip2 with its tokenizer and preprocessor_config.json."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(seed)
    text = {"vocab_size": len(WORDS), "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 7}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    vision = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"patch_size": 8} | ({"num_patches": 4} if kind == "siglip2" else {"image_size": SIZE})
    name = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2"}[kind]
    more = {"projection_dim": 8} if kind == "clip" else {}
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision, **more)
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[EOS]", 3), ("[BOS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    preprocessor(kind).save_pretrained(folder)
    return folder


def preprocessor(kind: str):
    """The image processor that belongs to such a checkpoint."""
    import transformers

    if kind == "clip":
        size = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
        return transformers.CLIPImageProcessorPil(**size)
    if kind == "siglip":
        return transformers.SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE})
    return transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=4)
