"""Questions about clips of the drawn world: who is trained on, what is counted, and what answering blindly scores."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import small
from svilm.config import ConfigError, override
from svilm.data.augment import CutPaste
from svilm.data.language import Language, Tokenizer
from svilm.data.manifest import Entry, Header, Manifest, ManifestError, write_manifest
from svilm.data.prepare import msrvtt_qa
from svilm.data.prepare.common import prepare
from svilm.data.sample import Sampling, load_clip
from svilm.engine.task import Context
from svilm.engine.trainer import Training, backward
from svilm.metrics.classification import score_answers
from svilm.metrics.submissions import read_answers, read_questions
from svilm.models.heads import AnswerHeadConfig
from svilm.recipes import recipe
from svilm.run import evaluate, execute, load_run
from svilm.tasks.common import Reader
from svilm.tasks.vqa import Vqa, VqaTask, answer, habit, most_frequent, questions, score

SMALL = (
    "training.steps=3", "training.log_every=1", "data.batch=8", "data.workers=0", "data.paste.probability=0",
    "model.video.width=32", "model.video.depth=2", "model.video.heads=2", "model.video.group_after=[1,2]",
    "model.text.width=32", "model.text.depth=1", "model.text.heads=2", "model.common=16",
)  # fmt: skip
HEAD = AnswerHeadConfig(hidden=12, dropout=0.0)
SAMPLING = Sampling(num_frames=8, size=16, short_side=16)


@pytest.fixture(scope="module")
def files(world, tmp_path_factory):
    """Manifests of the world's questions."""
    place = tmp_path_factory.mktemp("questions")
    for split in ("train", "val", "test"):
        listing = msrvtt_qa.listing(world / "msrvtt_qa" / f"{split}_qa.json")
        prepare(listing, to=place / f"{split}.jsonl", videos=world / "videos", check="none")
    return {split: place / f"{split}.jsonl" for split in ("train", "val", "test")}


@pytest.fixture(scope="module")
def run(files):
    task = Vqa(test=str(files["test"]), answers=12, head=HEAD.model_copy(update={"attention": True}))
    return override(
        recipe("tiny").model_copy(update={"task": task}),
        [*SMALL, f"data.manifest={files['train']}", "training.keep=best", f"training.validation={files['val']}"],
    )


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "questions"
    return place, execute(run, place)


def test_a_run_answers_the_official_questions(finished, files, world):
    place, scores = finished
    asked = read_questions(world / "msrvtt_qa" / "test_qa.json")
    given = read_answers(place / "predictions.json")
    assert [name for name, _ in given] == [question.id for question in asked]
    assert score_answers(asked, given).accuracy == scores["vqa/accuracy"]
    assert scores["vqa/scored"] == scores["vqa/official"] == len(asked)
    assert {"vqa/accuracy/what", "vqa/accuracy/how", "vqa/accuracy/where", "vqa_blind/accuracy"} <= set(scores)
    learned = most_frequent([entry.labels[0] for entry in Manifest(files["train"])], 12)
    share = 100 * sum(question.answer in learned for question in asked) / len(asked)
    assert scores["vqa/coverage"] == pytest.approx(share) and 0 < share < 100
    assert {answer for _, answer in given} <= set(learned)
    protocol = json.loads((place / "protocols.json").read_text())["vqa"]["protocol"]
    assert "12 answers cover" in protocol and f"{share:.2f} % of the answers are in the vocabulary" in protocol


def test_answering_without_looking_stands_beside_it(finished, files):
    _, scores = finished
    train, test = Manifest(files["train"]), Manifest(files["test"])
    common = most_frequent([entry.labels[0] for entry in train], 1)[0]
    right = sum(entry.labels[0] == common for entry in test)
    assert scores["vqa_majority/accuracy"] == pytest.approx(100 * right / len(test))
    names = ("vqa_majority", "vqa_majority_by_type", "vqa_majority_by_question")
    assert 0 < scores[f"{names[0]}/accuracy"] < scores[f"{names[1]}/accuracy"] < scores[f"{names[2]}/accuracy"]
    assert scores["vqa_chance/accuracy"] == pytest.approx(scores["vqa/coverage"] / 12)


def test_a_saved_run_gives_the_same_answers(finished):
    place, scores = finished
    before = (place / "predictions.json").read_text()
    assert evaluate(load_run(place), place) == scores
    assert (place / "predictions.json").read_text() == before


def test_questions_with_other_answers_are_left_out_and_counted(run, tmp_path, capsys):
    job = run.task.job(context_of(run, tmp_path))
    asked = [entry.labels[0] for entry in Manifest(run.data.manifest)]
    known = set(most_frequent(asked, 12))
    left = sum(answer not in known for answer in asked)
    assert job.items == len(asked) - left < len(asked)
    assert f"of {len(asked)} training questions; {left} are left out" in capsys.readouterr().err
    seen = [entry for batch in job.batches(0, 5) for entry in batch.entries]
    assert len({entry.id for entry in seen}) == len(seen) == 40
    assert {entry.labels[0] for entry in seen} <= known


def context_of(run, folder):
    manifest = Manifest(run.data.manifest)
    tokenizer = Tokenizer.train((caption for entry in manifest for caption in entry.captions), 200)
    return Context(folder, 0, torch.device("cpu"), run.data, small.model, lambda: tokenizer)


def test_answers_can_come_from_a_file(run, tmp_path):
    for name, text in {"ans2label.json": '{"two": 0, "red": 1}', "answers.txt": "two\nred\n"}.items():
        (tmp_path / name).write_text(text)
        task = run.task.model_copy(update={"vocabulary": str(tmp_path / name)})
        job = task.job(context_of(run, tmp_path))
        assert job.task.head.answers.names == ("two", "red")
    (tmp_path / "answers.txt").write_text("a dog\n")
    with pytest.raises(ConfigError, match=r"no answer of .*train\.jsonl is in task\.vocabulary"):
        task.job(context_of(run, tmp_path))


def test_clips_that_would_make_answers_wrong_are_refused(run, tmp_path):
    for change, words in (({"paste": CutPaste()}, r"data\.paste\.probability"), ({"flip": 0.5}, r"data\.flip")):
        changed = run.model_copy(update={"data": run.data.model_copy(update=change)})
        with pytest.raises(ConfigError, match=words):
            changed.task.job(context_of(changed, tmp_path))


def test_a_question_needs_its_answer(tmp_path):
    for entry in (Entry("q", "v.mp4", ("why?",), ((),)), Entry("q", "v.mp4", ("a", "b"), ((), ()), labels=("c",))):
        write_manifest(tmp_path / "q.jsonl", Header("test", ".", 1), [entry])
        with pytest.raises(ManifestError, match=r"q has .* must have one question and one answer"):
            questions(Manifest(tmp_path / "q.jsonl"))


def test_the_most_frequent_answers_come_first():
    answers = ["b", "a", "c", "a", "b", "d"]
    assert most_frequent(answers, 3) == ["a", "b", "c"]
    assert most_frequent(answers, 0) == ["a", "b", "c", "d"]


def test_habit_takes_the_narrowest_key_that_training_knows():
    def asked(question, answer, category="what"):
        return Entry(question + answer, "v.mp4", (question,), ((),), labels=(answer,), category=category)

    train = [asked("colour?", "red")] * 2 + [asked("colour?", "blue"), asked("shape?", "star"), asked("n?", "1", "how")]
    test = [asked("colour?", "red"), asked("colour?", "blue"), asked("size?", "red"), asked("m?", "1", "how")]

    def keys(entry):
        return (entry.category, entry.captions[0]), (entry.category,), ()

    assert habit(train, test, lambda entry: ((),)) == 50.0  # "red" twice
    assert habit(train, test, keys) == 75.0  # red, red, red of all what-questions, 1 of all how-questions
    assert habit(train, [asked("new?", "red", "where")], keys) == 100.0  # known from nowhere: the most frequent of all


@pytest.fixture(scope="module")
def reader(files):
    manifest = Manifest(files["test"])
    tokenizer = Tokenizer.train((caption for entry in manifest for caption in entry.captions), 40)
    return Reader(tokenizer, SAMPLING, Language(max_length=16), batch=5)


@pytest.fixture(scope="module")
def answering():
    torch.manual_seed(3)
    task = VqaTask(Vqa(head=HEAD), 16, 16, ("red", "two", "left", "star", "blue"))
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    text = small.CONFIG.text.model_copy(update={"vocabulary": 200})
    return small.model(config=small.CONFIG.model_copy(update={"text": text})).eval(), task


def test_a_clip_is_read_once_for_all_its_questions(files, reader, answering, monkeypatch):
    encoder, task = answering
    manifest = Manifest(files["test"])
    read = []
    monkeypatch.setattr(
        "svilm.data.loader.load_clip", lambda path, *a, **k: read.append(path) or load_clip(path, *a, **k)
    )
    monkeypatch.setattr("svilm.tasks.vqa._TEXTS", 3)
    given = answer(encoder, task, manifest, reader)
    assert len(read) == len(set(read)) == len({entry.video for entry in manifest}) < len(manifest) / 3
    task.eval()
    blind = {}
    for entry, (name, seen, unseen) in zip(manifest, given, strict=True):
        clip = load_clip(manifest.path_of(entry), None, None, SAMPLING, None)
        with torch.no_grad():
            groups = encoder.encode_video(clip.frames[None]).groups
            ids, mask = reader.tokenizer(entry.captions, 16)
            hidden = encoder.encode_text(ids, mask).hidden
            right = task.head(groups, hidden).argmax()
            zero = task.head(torch.zeros_like(groups), hidden).argmax()
        assert (name, seen, unseen) == (entry.id, *(task.head.answers.names[number] for number in (right, zero)))
        assert blind.setdefault(entry.captions[0], unseen) == unseen
    assert any(seen != unseen for _, seen, unseen in given)


def test_the_loss_is_the_cross_entropy_of_the_right_answers(answering):
    encoder, task = answering
    data = labelled(small.batch(8, paste=False), task.head.answers.names)
    hidden = encoder.encode_text(data.text_ids, data.text_mask).hidden[data.caption_index]
    logits = task.head(encoder.encode_video(data.video).groups, hidden)
    wanted = torch.tensor([clip % 5 for clip in range(8)])
    terms = task.loss(encoder, task.features(encoder, data), data)
    torch.testing.assert_close(terms.total, F.cross_entropy(logits, wanted))
    accuracy = 100 * (logits.argmax(dim=1) == wanted).float().mean()
    torch.testing.assert_close(terms.watched["train/accuracy"], accuracy)


def labelled(batch, names):
    entries = tuple(replace(entry, labels=(names[k % len(names)],)) for k, entry in enumerate(batch.entries))
    return replace(batch, entries=entries)


def test_parts_give_the_gradient_of_the_whole(answering):
    encoder, task = answering
    data = labelled(small.batch(8, paste=False), task.head.answers.names)
    found = []
    for size in (0, 3):
        encoder.zero_grad(), task.zero_grad()
        backward(encoder, task, data, Training(micro_batch=size))
        found.append([p.grad.clone() for p in (*encoder.parameters(), *task.parameters()) if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 10
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)


def test_unknown_answers_are_wrong_and_stay_in_the_denominator(tmp_path):
    def manifest(name, answers):
        rows = [Entry(f"{k}", "v.mp4", ("what?",), ((),), labels=(a,), category="what") for k, a in enumerate(answers)]
        write_manifest(tmp_path / name, Header("qa", ".", len(rows) + 1, "qa test"), rows)
        return Manifest(tmp_path / name)

    train, test = manifest("train.jsonl", ["red", "red", "blue"]), manifest("test.jsonl", ["red", "blue", "mauve", "x"])
    task = VqaTask(Vqa(head=HEAD), 16, 16, ("red", "blue"))
    given = [("0", "red", "blue"), ("1", "red", "blue"), ("2", "red", "blue"), ("3", "blue", "blue")]
    found = score(given, test, train, task, "words", tmp_path)
    assert found.metrics == {
        "vqa/accuracy": 25.0,
        "vqa/accuracy/what": 25.0,
        "vqa/coverage": 50.0,
        "vqa_blind/accuracy": 25.0,
        "vqa_chance/accuracy": 25.0,
        "vqa_majority/accuracy": 25.0,
        "vqa_majority_by_type/accuracy": 25.0,
        "vqa_majority_by_question/accuracy": 25.0,
    }
    assert (found.scored, found.official) == (4, 5)
    assert found.protocol.startswith("qa test; words; exact match over 4 questions")


def test_a_few_clips_can_be_learned_by_heart(answering):
    encoder, task = small.model(), VqaTask(Vqa(head=HEAD), 16, 16, ("red", "two", "left"))
    data = labelled(small.batch(6, paste=False), ("red", "two", "left"))
    optimizer = torch.optim.Adam([*encoder.parameters(), *task.parameters()], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        terms = backward(encoder, task, data, Training())
        optimizer.step()
    assert terms.total < 0.1
