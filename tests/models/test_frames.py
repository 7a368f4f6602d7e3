"""Published image-text models: our preprocessing gives what transformers' own processors give."""

import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from svilm.models.frames import FrameEncoder
from svilm.models.published import WeightsError
from tiny_models import SIZE, preprocessor, write_checkpoint

CPU = torch.device("cpu")
KINDS = ("clip", "siglip", "siglip2")


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request, tmp_path_factory):
    return request.param, write_checkpoint(tmp_path_factory.mktemp("published") / request.param, request.param)


def features_of(found):
    return F.normalize(found if isinstance(found, torch.Tensor) else found.pooler_output, dim=-1)


def test_frames_and_texts_are_those_of_transformers(checkpoint):
    kind, folder = checkpoint
    encoder = FrameEncoder.load(str(folder), CPU)
    assert (encoder.size, encoder.fit, encoder.width) == (SIZE, "crop" if kind == "clip" else "squash", 8)
    assert encoder.short_side == SIZE
    frames = torch.randint(0, 256, (3, SIZE, SIZE, 3), dtype=torch.uint8)
    pictures = [Image.fromarray(frame.numpy()) for frame in frames]
    wanted = features_of(encoder.model.get_image_features(**preprocessor(kind)(images=pictures, return_tensors="pt")))
    torch.testing.assert_close(encoder.encode_frames(frames), wanted.detach(), atol=1e-5, rtol=0)
    texts = ["a red circle", "a man", "a blue square a blue square a blue square"]
    padding = {"padding": True} if kind == "clip" else {"padding": "max_length"}
    words = encoder.tokenizer(texts, return_tensors="pt", truncation=True, max_length=7, **padding)
    given = {"input_ids": words["input_ids"]} | ({"attention_mask": words["attention_mask"]} if kind == "clip" else {})
    wanted = features_of(encoder.model.get_text_features(**given))
    torch.testing.assert_close(encoder.encode_text(texts), wanted.detach(), atol=1e-6, rtol=0)


def test_a_text_has_the_same_vector_in_any_company(checkpoint):
    encoder = FrameEncoder.load(str(checkpoint[1]), CPU)
    alone, beside = encoder.encode_text(["a man"]), encoder.encode_text(["a man", "a red circle a red"])
    torch.testing.assert_close(alone[0], beside[0], atol=1e-6, rtol=0)


def test_siglip_is_asked_in_lower_case_whatever_its_tokenizer_does(checkpoint):
    kind, folder = checkpoint
    encoder = FrameEncoder.load(str(folder), CPU)
    lower, upper = encoder.encode_text(["a man", "A Man"])  # "[UNK] [UNK]" for all but the tokenizer of SigLIP 2
    assert torch.equal(lower, upper) == (kind != "clip")


def test_pickled_weights_are_read_but_not_run(tmp_path):
    folder = write_checkpoint(tmp_path / "clip", "clip")
    encoder = FrameEncoder.load(str(folder), CPU)
    (folder / "model.safetensors").unlink()
    torch.save(encoder.model.state_dict(), folder / "pytorch_model.bin")
    again = FrameEncoder.load(str(folder), CPU)
    texts = ["a red circle"]
    torch.testing.assert_close(again.encode_text(texts), encoder.encode_text(texts))

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="hold more than tensors and were not opened"):
        FrameEncoder.load(str(folder), CPU)
    assert not (tmp_path / "sprung").exists()


def test_what_does_not_fit_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "clip", "clip")
    tensors = FrameEncoder.load(str(folder), CPU).model.state_dict()
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"no preprocessor_config.json with image_mean"):
        FrameEncoder.load(str(folder), CPU)
    preprocessor("clip").save_pretrained(folder)
    from safetensors.torch import save_file

    tensors.pop("visual_projection.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"the weights lack visual_projection.weight"):
        FrameEncoder.load(str(folder), CPU)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match="type 'bert'; frame by frame go: clip, siglip, siglip2"):
        FrameEncoder.load(str(folder), CPU)
    (folder / "config.json").write_text("[")
    with pytest.raises(WeightsError, match="is not JSON"):
        FrameEncoder.load(str(folder), CPU)
