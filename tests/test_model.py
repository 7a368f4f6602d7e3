"""A saved model is refused by the name of a damaged file; words that are none, by the name of the argument."""

import inspect
import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from svilm.data.language import Tokenizer
from svilm.model import SViLM
from tiny_models import own_model


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "model"
    own_model().save_pretrained(folder)
    return folder


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def wrap(file):
    """Weights as a wrapper for several processes would have saved them."""
    save_file({f"module.{name}": tensor for name, tensor in load_file(file).items()}, file)


def stretch(file):
    save_file({**load_file(file), "video.position": torch.zeros(4, 5, 5, 16)}, file)


def lengthen(file):
    Tokenizer.train([chr(97 + number % 26) * (number + 1) for number in range(26)], 300).save(file.parent)


def change(part, setting, value):
    """Another value in config.json."""

    def damage(file):
        config = json.loads(file.read_text())
        config["model"][part][setting] = value
        file.write_text(json.dumps(config))

    return damage


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", cut, "cannot be read"),
        ("model.safetensors", lambda file: file.write_bytes(b"\0" * 100), "cannot be read"),
        ("model.safetensors", stretch, "video.position is (4, 5, 5, 16) instead of (4, 2, 2, 16)"),
        ("model.safetensors", wrap, "contrast_log_scale is missing; "),
        ("config.json", lambda file: file.write_text("{oops"), "Expecting property name"),
        ("config.json", lambda file: file.write_bytes(b"\xff"), "can't decode"),
        ("config.json", lambda file: file.write_text('{"model": {}}'), "sampling"),
        ("config.json", change("video", "depth", "three"), "model.video.depth"),
        ("config.json", change("video", "heads", 7), "16"),
        ("tokenizer.json", lambda file: file.write_text("{}"), ""),
        ("tokenizer.json", lambda file: file.write_bytes(b""), ""),
        ("tokenizer.json", lengthen, "word pieces, but the model knows 50"),
    ],
)
def test_a_damaged_file_is_named(saved, name, damage, message):
    assert SViLM.from_pretrained(saved, "cpu").encode_text("a red circle").shape == (1, 8)
    damage(saved / name)
    wanted = rf"{re.escape(str(saved / name))}: .*{re.escape(message)}.*; save or fetch the model again$"
    with pytest.raises(ValueError, match=re.compile(wanted, re.DOTALL)):
        SViLM.from_pretrained(saved, "cpu")


def test_weights_in_half_precision_are_taken(saved):
    file = saved / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    model = SViLM.from_pretrained(saved, "cpu")
    assert model.encode_text("a red circle").dtype == torch.float32


def test_no_texts_have_no_vectors():
    assert own_model().encode_text([]).shape == (0, 8)


def test_what_is_no_text_is_refused():
    encode = inspect.unwrap(SViLM.encode_text)  # as users have it, without the type checks of the tests
    with pytest.raises(TypeError, match=r"texts\[1\] is 7, of type int; give texts"):
        encode(own_model(), ["a red circle", 7])
    with pytest.raises(TypeError, match=r"texts\[0\] is None, of type NoneType; give texts"):
        encode(own_model(), None)


@pytest.mark.parametrize(
    ("noun", "kind", "said"),
    [
        ("", ValueError, "an empty noun"),
        (" \0", ValueError, "an empty noun"),
        (["car", "man"], TypeError, r"noun: \['car', 'man'\] is of type list; give one text"),
    ],
)
def test_a_noun_is_one_text(noun, kind, said):
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    assert own_model().ground(frames, " red  circle").noun == "red circle"
    with pytest.raises(kind, match=said):
        inspect.unwrap(SViLM.ground)(own_model(), frames, noun)
