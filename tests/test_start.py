"""What a run starts from.  That published weights arrive in a run is shown in test_run.py."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from small import CONFIG
from svilm.config import ConfigError
from svilm.data.language import Tokenizer
from svilm.data.manifest import Entry, Header, Manifest, write_manifest
from svilm.start import Start, fitted, initial_encoder, tokenizer_of


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    path = tmp_path / "train.jsonl"
    write_manifest(path, Header("test", ".", 1), [Entry("one", "one.mp4", ("a red circle",), ((),))])
    return Manifest(path)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    folder = tmp_path / "bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "circle"]
    BertModel(
        BertConfig(
            vocab_size=len(words), hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=96
        )
    ).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    return folder


def test_from_nothing_only_the_words_are_fitted(manifest: Manifest) -> None:
    words = len(tokenizer_of(Start(), manifest, 300))
    model = fitted(CONFIG, Start(), words)
    assert model.text.vocabulary == words <= 300
    assert model.model_copy(update={"text": CONFIG.text}) == CONFIG
    first, again, other = (initial_encoder(model, Start(), seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_text_encoder_brings_its_shape_its_weights_and_its_words(manifest: Manifest, bert: Path) -> None:
    start = Start(text=str(bert))
    model = fitted(CONFIG, start, 8)
    assert (model.text.width, model.text.vocabulary, model.video) == (24, 8, CONFIG.video)
    assert len(tokenizer_of(start, manifest, 300)) == 8
    theirs = BertModel.from_pretrained(bert).embeddings.word_embeddings.weight
    ours = initial_encoder(model, start, 0).text.bert.state_dict()["embeddings.word_embeddings.weight"]
    torch.testing.assert_close(ours, theirs.detach())


def test_words_may_come_from_elsewhere(manifest: Manifest, bert: Path, tmp_path: Path) -> None:
    Tokenizer.train(["a blue square"], 300).save(tmp_path)
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        found = tokenizer_of(Start(text=str(bert), tokenizer=str(place)), manifest, 300)
        assert found(["blue"], 8)[0].tolist() == Tokenizer.load(tmp_path)(["blue"], 8)[0].tolist()


def test_more_words_than_the_text_encoder_knows_are_refused(manifest: Manifest, bert: Path, tmp_path: Path) -> None:
    Tokenizer.train(["a red circle", "a blue square"], 300).save(tmp_path)
    start = Start(text=str(bert), tokenizer=str(tmp_path))
    words = len(tokenizer_of(start, manifest, 300))
    with pytest.raises(ConfigError, match=rf"^start\.tokenizer: .* has {words} word pieces, more than the 8 .*{bert}"):
        fitted(CONFIG, start, words)
    with pytest.raises(ConfigError, match=r"^start\.text: .* has 9 word pieces, more than the 8 "):
        fitted(CONFIG, Start(text=str(bert)), 9)
    assert fitted(CONFIG, start, 7).text.vocabulary == 8


def test_word_pieces_that_cannot_be_read_name_the_setting(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^start\.tokenizer: .*no tokenizer\.json or vocab\.txt"):
        tokenizer_of(Start(tokenizer=str(tmp_path)), manifest, 300)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"^start\.tokenizer: "):
        tokenizer_of(Start(tokenizer=str(tmp_path)), manifest, 300)


@pytest.mark.parametrize("part", ["model", "video", "text", "tokenizer"])
def test_errors_name_the_setting(part: str, manifest: Manifest) -> None:
    start = Start(**{part: "nowhere/at-all"})
    with pytest.raises(ConfigError, match=rf"^start\.{part}: 'nowhere/at-all' is neither a folder"):
        tokenizer_of(start, manifest, 300)
        fitted(CONFIG, start, 300)


def test_weights_that_do_not_fit_name_the_setting(bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"^start\.video: .*bert"):
        fitted(CONFIG, Start(video=str(bert)), 300)
    with pytest.raises(ConfigError, match=r"^start\.text: .*"):
        initial_encoder(CONFIG, Start(text=str(bert)), 0)


def test_a_whole_model_stands_alone() -> None:
    with pytest.raises(ConfigError, match=r"start\.model brings the whole model"):
        fitted(CONFIG, Start(model="runs/demo", text="bert"), 10)
