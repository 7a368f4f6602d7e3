"""Heads against their formulas, their names with their weights, and heads side by side against heads apart."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from svilm.models.heads import AnswerHead, AnswerHeadConfig, ClassHead, Names, ProbeHeads, ridge

ANSWERS = ("red", "blue", "a café", "[SEP]")


def answer_head(answers=ANSWERS, **options) -> AnswerHead:
    head = AnswerHead(AnswerHeadConfig(**{"hidden": 6, **options}), 8, 5, answers).double().eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return head


def clips(batch=3, groups=4):
    return torch.randn(batch, groups, 8, dtype=torch.float64), torch.randn(batch, 5, dtype=torch.float64)


def test_an_answer_is_the_product_of_both_sides_through_two_layers():
    head, (groups, question) = answer_head(), clips()
    video = F.relu(head.video(groups.mean(dim=1)))
    hidden = F.relu(head.up(video * F.relu(head.question(question))))
    assert hidden.shape == (3, 12)
    torch.testing.assert_close(head(groups, question), head.out(hidden))


def test_a_question_weighs_the_groups_when_attention_is_on():
    head, (groups, question) = answer_head(attention=True), clips()
    shares = head.look(groups, question)
    for clip in range(3):
        scores = [
            head.look.weigh(F.relu(head.look.group(group)) * F.relu(head.look.question(question[clip])))
            for group in groups[clip]
        ]
        torch.testing.assert_close(shares[clip], torch.cat(scores).softmax(dim=0))
    mixed = torch.stack([shares[clip] @ groups[clip] for clip in range(3)])
    torch.testing.assert_close(head(groups, question), answer_of_mean(head, mixed, question))
    assert (shares.max(dim=1).values > 0.3).any()


def answer_of_mean(head: AnswerHead, video, question):
    both = F.relu(head.video(video)) * F.relu(head.question(question))
    return head.out(F.relu(head.up(both)))


@pytest.mark.parametrize("attention", [False, True])
def test_the_order_of_the_groups_does_not_matter(attention):
    head, (groups, question) = answer_head(attention=attention), clips()
    torch.testing.assert_close(head(groups.flip(1), question), head(groups, question))


def test_answers_are_dropped_out_only_while_training():
    head, (groups, question) = answer_head(dropout=0.9), clips()
    assert torch.equal(head(groups, question), head(groups, question))
    head.train()
    assert not torch.equal(head(groups, question), head(groups, question))


def test_names_travel_with_the_weights(tmp_path):
    saved = answer_head()
    save_file(saved.state_dict(), tmp_path / "head.safetensors")
    other = answer_head(answers=tuple(reversed(ANSWERS)))
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert other.answers.names == ANSWERS and other.answers.number["a café"] == 2
    groups, question = clips()
    assert torch.equal(other(groups, question), saved(groups, question))
    with pytest.raises(RuntimeError, match="size mismatch"):
        answer_head(answers=ANSWERS[:3]).load_state_dict(load_file(tmp_path / "head.safetensors"))


def test_each_output_has_its_own_name():
    for wrong in ((), ("a", "a")):
        with pytest.raises(ValueError, match="each output needs its own"):
            Names(wrong)


def test_a_class_head_starts_undecided():
    head = ClassHead(8, ANSWERS, dropout=0.5)
    assert torch.equal(head(torch.randn(2, 8)), torch.zeros(2, 4))
    head(torch.randn(2, 8)).sum().backward()
    assert head.out.weight.grad.abs().sum() > 0


def test_heads_side_by_side_are_linear_layers_on_scaled_features():
    centre, spread = torch.randn(8), torch.rand(8) + 0.5
    heads = ProbeHeads(3, ANSWERS, centre, spread)
    vectors = torch.randn(5, 8)
    assert torch.equal(heads(vectors), torch.zeros(3, 5, 4))
    nn.init.normal_(heads.matrices)
    nn.init.normal_(heads.offsets)
    found = heads(vectors)
    for head in range(3):
        expected = F.linear((vectors - centre) / spread, heads.matrices[head], heads.offsets[head])
        torch.testing.assert_close(found[head], expected)
    torch.testing.assert_close(heads(vectors, slice(1, 2)), found[1:2])
    assert not any(name.endswith("weight") for name, _ in heads.named_parameters())  # which would be decayed


def test_ridge_is_the_minimum_of_its_loss():
    vectors, labels = torch.randn(40, 5).double(), torch.randint(0, 3, (40,))
    penalty = 0.3

    def loss(matrix, offsets):
        errors = vectors @ matrix.T + offsets - F.one_hot(labels, 3)
        return errors.square().sum(dim=1).mean() + penalty * matrix.square().sum()

    found = [each.clone().requires_grad_() for each in ridge(vectors, labels, 3, penalty)]
    for gradient in torch.autograd.grad(loss(*found), found):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-10, rtol=0)
