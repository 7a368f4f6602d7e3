import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svilm.config import ConfigError, build
from svilm.data.language import TEMPLATES, Language, Tokenizer, noun_prompts, pack

CAPTIONS = ["a red circle moves left", "two green stars spin", "a man flips a pancake in a pan"] * 3
TOKENIZER = Tokenizer.train(CAPTIONS, 200)


def test_the_twelve_templates_of_table_7():
    assert len(set(TEMPLATES)) == 12
    assert {"A footage of a {}.", "A portrait of the {}.", "A video footage of one {}."} <= set(TEMPLATES)


def test_training_is_repeatable_and_knows_captions_and_prompts():
    again = Tokenizer.train(CAPTIONS, 200)
    ids, _ = TOKENIZER([*CAPTIONS, "A video footage of one pan."], 32)
    assert again(CAPTIONS, 32)[0].tolist() == TOKENIZER(CAPTIONS, 32)[0].tolist()
    unknown = 1
    assert unknown not in ids


def test_cls_first_sep_last_and_padding_masked():
    ids, mask = TOKENIZER(["a red circle moves left", "a man"], 32)
    assert ids[:, 0].tolist() == [2, 2]
    last = mask.sum(dim=1) - 1
    assert [int(ids[row, last[row]]) for row in (0, 1)] == [3, 3]
    assert (ids[~mask] == 0).all() and mask[1].sum() < mask[0].sum()


@given(st.text(max_size=300), st.integers(4, 40))
def test_long_texts_are_cut_but_keep_sep(text, max_length):
    ids, mask = TOKENIZER([text], max_length)
    assert ids.shape[1] <= max_length and mask.all()
    assert (int(ids[0, 0]), int(ids[0, -1])) == (2, 3)


def test_save_and_load(tmp_path):
    TOKENIZER.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert Tokenizer.load(path)(CAPTIONS, 32)[0].tolist() == TOKENIZER(CAPTIONS, 32)[0].tolist()


def test_berts_vocab_file(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    ids, _ = Tokenizer.load(tmp_path)(["A mans"], 8)
    assert ids.tolist() == [[2, 5, 6, 7, 3]]


def test_transformers_reads_the_saved_tokenizer(tmp_path):
    from transformers import PreTrainedTokenizerFast

    TOKENIZER.save(tmp_path)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert theirs("a red circle")["input_ids"] == TOKENIZER(["a red circle"], 32)[0][0].tolist()


def test_missing_and_unfit_tokenizers(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json or vocab\.txt"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(ValueError):
        Tokenizer.load(tmp_path)


def test_nouns_while_training_are_drawn_and_each_gets_a_template():
    nouns = ("man", "pan", "pancake")
    rng = np.random.default_rng(0)
    drawn = [noun_prompts(nouns, 2, rng) for _ in range(300)]
    assert all(len(set(chosen)) == 2 for chosen, _ in drawn)
    assert {noun for chosen, _ in drawn for noun in chosen} == set(nouns)
    prompts = {prompt for chosen, texts in drawn for noun, prompt in zip(chosen, texts, strict=True) if noun == "man"}
    assert prompts == {template.format("man") for template in TEMPLATES}


def test_nouns_while_evaluating_are_the_first_ones():
    assert noun_prompts(("man", "pan", "dog"), 2, None) == (("man", "pan"), ("A video of a man.", "A video of a pan."))


def test_packing_tokenises_each_distinct_text_once():
    captions = ["a red circle", "a man", "a red circle"]
    prompts = [("A video of a circle.",), (), ("A video of a circle.", "A video of a man.")]
    packed = pack(captions, prompts, TOKENIZER, Language())
    assert packed.ids.shape[0] == 4
    assert packed.caption_index.tolist() == [0, 1, 0]
    assert packed.noun_index.tolist() == [[2, 0], [1, 1], [2, 3]]
    assert packed.noun_mask.tolist() == [[True, False], [True, False], [True, True]]  # the man stands in for himself


def test_captions_without_nouns_can_be_left_out():
    packed = pack(["a man"], [()], TOKENIZER, Language(no_noun="skip"))
    assert packed.noun_mask.tolist() == [[False, False]]


@pytest.mark.parametrize("wrong", [{"max_length": 2}, {"max_length": 0}, {"nouns": 0}, {"nouns": -1}])
def test_settings_that_leave_no_word_or_no_noun_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build(Language, wrong)


def test_the_smallest_settings_work():
    packed = pack(["a red circle"], [()], TOKENIZER, Language(max_length=3, nouns=1))
    assert packed.ids.shape == (1, 3) and packed.noun_mask.tolist() == [[True]]
