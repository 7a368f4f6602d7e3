import pytest
import torch
from transformers import BertModel

from svilm.models.text import TextEncoder, TextEncoderConfig, bert_config

CONFIG = TextEncoderConfig(vocabulary=40, width=16, depth=2, heads=2, positions=12)


def texts(length=8):
    ids = torch.randint(1, 40, (3, length))
    mask = torch.arange(length)[None] < torch.tensor([length, 5, 2])[:, None]
    return ids, mask


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_gives_the_cls_state_of_bert_and_its_gradients(depth):
    config = CONFIG.model_copy(update={"depth": depth, "dropout": 0.0})
    encoder, (ids, mask) = TextEncoder(config).train(), texts()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    bert = BertModel(bert_config(config), add_pooling_layer=False).train()
    bert.load_state_dict(encoder.bert.state_dict())
    states = encoder(ids, mask)
    expected = bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state[:, 0]
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-5)
    (states * torch.arange(16)).sum().backward()
    (expected * torch.arange(16)).sum().backward()
    for (name, ours), theirs in zip(encoder.bert.named_parameters(), bert.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad, theirs.grad, rtol=1e-3, atol=2e-4, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_a_seventh_dropped_at_random_leaves_the_mean_of_bert():
    """Dropout at the places where BERT has it: over many draws the states spread as much as BERT's."""
    config = CONFIG.model_copy(update={"dropout": 1 / 7})
    encoder, (ids, mask) = TextEncoder(config).train(), texts()
    many, where = ids.repeat(3000, 1), mask.repeat(3000, 1)
    theirs = encoder.bert(input_ids=many, attention_mask=where[:, None, None]).last_hidden_state[:, 0]
    ours, theirs = (states.detach().unflatten(0, (3000, 3)) for states in (encoder(many, where), theirs))
    torch.testing.assert_close(ours.mean(dim=0), theirs.mean(dim=0), rtol=0, atol=0.06)
    torch.testing.assert_close(ours.std(dim=0), theirs.std(dim=0), rtol=0.06, atol=0)


@pytest.mark.compile
def test_traces_into_one_graph():
    torch._dynamo.reset()
    encoder, (ids, mask) = TextEncoder(CONFIG).eval(), texts()
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(ids, mask), encoder(ids, mask))


def test_padding_does_not_matter():
    encoder, (ids, mask) = TextEncoder(CONFIG).eval(), texts()
    expected = encoder(ids, mask)
    torch.testing.assert_close(encoder(ids * mask, mask), expected)
    torch.testing.assert_close(encoder(ids[2:, :2], mask[2:, :2]), expected[2:], rtol=0, atol=1e-6)


def test_dropout_is_for_training_and_follows_the_seed():
    ids, mask = texts()
    encoder = TextEncoder(CONFIG)
    assert torch.equal(encoder.eval()(ids, mask), encoder(ids, mask))
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(encoder.train()(ids, mask))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    still = TextEncoder(CONFIG.model_copy(update={"dropout": 0.0})).train()
    assert torch.equal(still(ids, mask), still(ids, mask))


def test_settings_decide_the_shape():
    bert = TextEncoder(CONFIG).bert
    assert bert.embeddings.word_embeddings.weight.shape == (40, 16)
    assert bert.embeddings.position_embeddings.weight.shape == (12, 16)
    assert len(bert.encoder.layer) == 2
    assert bert.config.num_attention_heads == 2
    wide = TextEncoder(CONFIG.model_copy(update={"initial_std": 0.3})).bert
    assert 0.25 < wide.encoder.layer[0].intermediate.dense.weight.std() < 0.35


def test_defaults_are_bert_base():
    with torch.device("meta"):
        parameters = sum(p.numel() for p in TextEncoder(TextEncoderConfig()).parameters())
    assert parameters == 108_891_648  # BERT-base without its pooler


def test_a_text_longer_than_the_positions_is_refused():
    with pytest.raises(ValueError, match=r"texts of 13 word pieces, but the text encoder has 12 positions"):
        TextEncoder(CONFIG)(torch.ones(1, 13, dtype=torch.long), torch.ones(1, 13, dtype=torch.bool))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of the number of attention heads"):
        TextEncoder(CONFIG.model_copy(update={"heads": 3}))
