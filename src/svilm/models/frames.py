"""Published image-text models on single frames: CLIP, SigLIP and SigLIP 2 in Hugging Face's format.

Their own image processors want torchvision or Pillow; here frames come at the right size already, so that rescaling
and normalising is all that is left of them.
"""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from svilm.hub import local_folder
from svilm.models.published import WeightsError

CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
"""Kinds of checkpoints by the model_type of their config.json."""
_SETTINGS = ["config.json", "*processor_config.json", "tokenizer_config.json"]
_TOKENS = ["tokenizer.json", "vocab.json", "merges.txt", "*.model", "special_tokens_map.json", "README.md"]


class FrameEncoder:
    """Image and text side of a checkpoint; build it with `load`."""

    def __init__(self, model: Any, tokenizer: Any, preprocessing: dict[str, Any]) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.kind: str = model.config.model_type
        mean, std = (torch.tensor(preprocessing[name]) for name in ("image_mean", "image_std"))
        self._scale = float(preprocessing.get("rescale_factor", 1 / 255)) / std
        self._shift = mean / std
        vision = model.config.vision_config
        self.size: int = (
            round(vision.num_patches**0.5) * vision.patch_size if self.kind == "siglip2" else vision.image_size
        )
        """Side in pixels of the square that the model sees."""
        crops = bool(preprocessing.get("do_center_crop", False))
        self.fit: Literal["crop", "squash"] = "crop" if crops else "squash"
        """Whether a picture's centre is cut out or all of it pressed into the square."""
        given = preprocessing.get("size")
        short = given.get("shortest_edge", 0) if isinstance(given, dict) else given
        self.short_side: int = max(int(short or 0), self.size) if crops else self.size
        """Short side of the picture that the square is cut out of."""

    @classmethod
    def load(cls, name: str, device: torch.device) -> "FrameEncoder":
        """From a folder, or an id of the hub.

        Pickled weights are opened only as far as PyTorch can without running what is in them.  Raises WeightsError
        for another kind of model and for files that are missing or broken, HubError when nothing is found.
        """
        folder = _folder(name)
        config = _read_json(folder / "config.json")
        kind = config.get("model_type")
        if kind not in CLASSES:
            raise WeightsError(f"{folder} holds a model of type {kind!r}; frame by frame go: {', '.join(CLASSES)}")
        preprocessing = _preprocessing(folder)
        import transformers

        transformers.utils.logging.disable_progress_bar()  # of weights that are read in a moment
        try:
            model, report = getattr(transformers, CLASSES[kind]).from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except pickle.UnpicklingError:
            raise WeightsError(
                f"{folder}: the weights hold more than tensors and were not opened, because unpickling can run "
                "foreign code; get them as model.safetensors"
            ) from None
        except (OSError, RuntimeError, ValueError, KeyError, ImportError) as error:
            raise WeightsError(f"{folder} cannot be read as a {kind} model: {error}") from None
        lacking = sorted(report["missing_keys"])
        if lacking:
            raise WeightsError(f"{folder}: the weights lack {', '.join(lacking[:5])}; fetch them again")
        return cls(model.to(device), tokenizer, preprocessing)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        config = self.model.config
        return int(config.projection_dim if self.kind == "clip" else config.vision_config.hidden_size)

    @torch.no_grad()
    def encode_frames(self, frames: UInt8[Tensor, "frames size size 3"]) -> Float[Tensor, "frames common"]:
        """Unit vectors of frames, RGB of 0 to 255, on the model's device."""
        pixels = frames.to(self.device).float() * self._scale.to(self.device) - self._shift.to(self.device)
        inputs: dict[str, Tensor] = {"pixel_values": pixels.permute(0, 3, 1, 2)}
        if self.kind == "siglip2":
            inputs = self._patches(pixels)
        return _unit(self.model.get_image_features(**inputs))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "texts common"]:
        """Unit vectors of texts, on the model's device; longer ones than the model can read are cut.

        CLIP's tokenizer makes them lower case itself.  SigLIP was trained on lower case too, but the tokenizers of many
        of its checkpoints leave that to the caller.
        """
        longest = self.model.config.text_config.max_position_embeddings
        # SigLIP was trained on texts filled up to its full length and without a mask
        padding = True if self.kind == "clip" else "max_length"
        texts = list(texts) if self.kind == "clip" else [text.lower() for text in texts]
        words = self.tokenizer(texts, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
        inputs = {"input_ids": words["input_ids"].to(self.device)}
        if self.kind == "clip":
            inputs["attention_mask"] = words["attention_mask"].to(self.device)
        return _unit(self.model.get_text_features(**inputs))

    def _patches(self, pixels: Float[Tensor, "frames size size 3"]) -> dict[str, Tensor]:
        """The inputs of SigLIP 2 with free aspect: patches in rows, all of them real."""
        side = self.model.config.vision_config.patch_size
        count, places = len(pixels), self.size // side
        grid = pixels.reshape(count, places, side, places, side, 3).transpose(2, 3)
        flat = grid.reshape(count, places * places, side * side * 3)
        return {
            "pixel_values": flat,
            "pixel_attention_mask": torch.ones(flat.shape[:2], dtype=torch.int32, device=flat.device),
            "spatial_shapes": torch.full((count, 2), places, device=flat.device),
        }


def _folder(name: str) -> Path:
    weights = ["model*.safetensors"]
    folder = local_folder(name, [*_SETTINGS, *weights], optional=_TOKENS)
    if any(folder.glob(weights[0])):
        return folder
    return local_folder(name, [*_SETTINGS, "pytorch_model*.bin"], optional=_TOKENS)


def _preprocessing(folder: Path) -> dict[str, Any]:
    """What the checkpoint's image processor does with pixels."""
    for file in ("preprocessor_config.json", "processor_config.json"):
        if (folder / file).is_file():
            data = _read_json(folder / file)
            data = data.get("image_processor", data)
            if all(isinstance(data.get(key), list) and len(data[key]) == 3 for key in ("image_mean", "image_std")):
                return data
    raise WeightsError(f"{folder} has no preprocessor_config.json with image_mean and image_std; fetch it too")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{file.parent} has no {file.name}; give a folder in Hugging Face's format") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise WeightsError(f"{file} is not a table of settings")
    return data


def _unit(found: Any) -> Float[Tensor, "rows common"]:
    vectors: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return F.normalize(vectors.float(), dim=-1, eps=1e-6)
