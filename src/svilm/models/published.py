"""Files of a checkpoint in Hugging Face's format: settings, tensors, licence.  None of them is ever run."""

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from svilm.hub import local_folder


class WeightsError(ValueError):
    """A checkpoint that cannot be read or does not fit the encoder."""


def config_folder(source: str) -> Path:
    """The folder with config.json of ``source``, a folder or an id of the hub; else HubError."""
    return local_folder(source, ["config.json"])


def weights_folder(source: str) -> Path:
    """The folder with config.json and tensors of ``source``; pickles are fetched only for want of safe files."""
    folder = local_folder(source, ["config.json", "model*.safetensors"], optional=["README.md"])
    if any(folder.glob("model*.safetensors")):
        return folder
    return local_folder(source, ["config.json", "pytorch_model*.bin"], optional=["README.md"])


def read_config(folder: Path, *kinds: str) -> Any:
    """config.json as transformers' class for it, which knows the defaults of what the file leaves out.

    Raises WeightsError when the file is missing or broken, or its model_type is not one of ``kinds``.
    """
    import transformers

    file = folder / "config.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        kind = data["model_type"]
    except FileNotFoundError:
        raise WeightsError(f"{folder} has no config.json; give a folder in Hugging Face's format") from None
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} is not the configuration of a model: {error!r}") from None
    if kind not in kinds:
        raise WeightsError(f"{folder} holds a model of type {kind!r}; supported here: {', '.join(kinds)}")
    classes = {"vivit": "VivitConfig", "videomae": "VideoMAEConfig", "bert": "BertConfig"}
    return getattr(transformers, classes[kind]).from_dict(data)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors by their names in the files, in fp32.

    Files of several parts are put together.  A pickled file is opened only as far as PyTorch can without
    running what is in it, which is what transformers does.  Raises WeightsError for files that are missing or
    broken or hold anything but finite numbers.
    """
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise WeightsError(f"{folder} has neither model.safetensors nor pytorch_model.bin")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= {name: tensor.float() for name, tensor in _read(file).items()}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise WeightsError(f"{folder}: infinite or not a number: {', '.join(broken)}")
    return tensors


def load_plain(file: Path) -> Any:
    """What torch saved, as far as it is tensors and plain values; nothing in it is run.

    Raises pickle.UnpicklingError for anything else, and ValueError where parts of the file are compressed, which
    torch never does: a few kilobytes of it could fill the memory.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as parts:
            size, held = file.stat().st_size, parts.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED or part.file_size > size for part in held):
                raise ValueError("parts of it are compressed")
    return torch.load(file, map_location="cpu", weights_only=True)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        data = load_plain(file)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{file} holds more than tensors and was not opened, because unpickling can run foreign code; "
            "get the weights as model.safetensors"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{file} cannot be read ({error}); fetch it again") from error
    if not isinstance(data, dict) or not all(isinstance(value, Tensor) for value in data.values()):
        raise WeightsError(f"{file} is not a table of tensors; get the weights as model.safetensors")
    return data


def read_licence(folder: Path) -> str | None:
    """What the header of the model card (README.md) states as the licence of the weights."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    header = re.match(r"\s*---\s*\n(.*?)\n---", text, flags=re.DOTALL)
    found = re.findall(r"^(license|license_name):[ \t]*[\"']?([^\s\"']+)", header[1] if header else "", re.M)
    fields = dict(found)
    return fields.get("license_name") or fields.get("license")
