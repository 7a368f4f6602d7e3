"""Captions tell exactly what is shown: whoever understands them finds the clip.  Questions have an answer."""

import re

import pytest

from svilm.data.nouns import noun_phrases
from svilm.data.world import captions, questions, scene
from svilm.data.world.scenes import COLOURS, TEXTURES, Scene
from svilm.data.world.shapes import SHAPES
from svilm.data.world.words import VERBS, action, phrases

CLIPS = [scene(0, "test", index) for index in range(300)] + [scene(0, "train", index) for index in range(200)]
TOLD = [(clip, captions(clip, 5)) for clip in CLIPS]
NOUN = rf"(?:(?P<size>small|large) )?(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})"
MOTION = {words: motion for motion, wordings in VERBS.items() for pair in wordings for words in pair}
VERB = "|".join(sorted(MOTION, key=len, reverse=True))


def understood(text: str) -> tuple[tuple[tuple[str, str, str], ...], ...]:
    """The meaning of a caption, found by reading it."""
    shots = []
    for part in re.split(r", then | before |, later ", text):
        nouns = re.findall(rf"\b{NOUN}\b", part)
        verbs = re.findall(rf"\b({VERB})\b", part)
        if " are both " in part:
            verbs *= 2
        assert len(nouns) == len(verbs), text
        facts = [(colour, shape, MOTION[verb]) for (_, colour, shape), verb in zip(nouns, verbs, strict=True)]
        shots.append(tuple(sorted(facts)))
    return tuple(shots)


def things(clip: Scene):
    return [actor.thing for shot in clip.shots for actor in shot.actors]


def test_a_caption_tells_every_thing_with_its_motion_and_nothing_else():
    for clip, told in TOLD:
        for caption in told:
            assert understood(caption.text) == clip.meaning


def test_a_perfect_reader_finds_every_test_clip_at_once():
    test = [(clip, told[0].text) for clip, told in TOLD if clip.split == "test"]
    queries = [query for _, query in test]
    assert len(set(queries)) == len(queries)
    shown = [clip.meaning for clip, _ in test]
    assert [shown.index(understood(query)) for query in queries] == list(range(len(test)))
    assert len(set(shown)) == len(shown)


def test_wordings_no_motion_shares_with_another():
    wordings = [words for pairs in VERBS.values() for pair in pairs for words in pair]
    assert len(set(wordings)) == len(wordings)


def test_sizes_and_textures_said_are_true():
    said = 0
    for clip, told in TOLD:
        size = {f"{t.colour} {t.shape}": t.size for t in things(clip)}
        for caption in told:
            for word, colour, shape in re.findall(NOUN, caption.text):
                assert word in ("", size[f"{colour} {shape}"])
            for texture in re.findall(r"(\w+) background", caption.text):
                assert texture == clip.shots[0].background.texture and texture in TEXTURES
                said += 1
    assert said > 50


def test_nouns_are_the_phrases_of_the_caption_in_their_order():
    for clip, told in TOLD:
        known = {phrase for thing in things(clip) for phrase in phrases(thing)}
        for caption in told:
            assert caption.nouns == tuple(match[0] for match in re.finditer(NOUN, caption.text))
            assert set(caption.nouns) <= known and len(caption.nouns) == len(things(clip))


def test_the_offline_chunker_finds_the_same_nouns():
    sample = [caption for _, told in TOLD[:80] for caption in told[:2]]
    found = noun_phrases([caption.text for caption in sample], "rules")
    objects = [tuple(noun for noun in nouns if not noun.endswith(" background")) for nouns in found]
    right = sum(nouns == caption.nouns for nouns, caption in zip(objects, sample, strict=True))
    assert right >= 0.99 * len(sample)


def test_articles_agree():
    for _, told in TOLD:
        for caption in told:
            for article, word in re.findall(r"\b(an?) (\w+)", caption.text):
                assert (article == "an") == (word == "orange"), caption.text


def test_wordings_differ_and_the_first_do_not_depend_on_their_number():
    for clip, five in TOLD[:60]:
        assert len({caption.text for caption in five}) == 5
        assert captions(clip, 2) == five[:2]


def test_captions_fit_into_the_32_tokens_of_the_paper():
    for _, told in TOLD:
        for caption in told:
            assert len(re.findall(r"\w+|[^\w\s]", caption.text)) <= 30, caption.text


def test_the_grammar_is_varied():
    forms = {re.sub(VERB, "V", re.sub(rf"an? {NOUN}", "N", told[0].text)) for _, told in TOLD}
    assert len(forms) > 25


def answers(clip: Scene) -> dict[str, str]:
    asked = questions(clip)
    found = {question.question: question.answer for question in asked}
    assert len(found) == len(asked), "a question asked twice"
    return found


def test_answers_are_true_and_only_one_is():
    for clip in CLIPS:
        found, cast = answers(clip), things(clip)
        assert found["how many shapes are there?"] == ("one", "two", "three")[len(cast) - 1]
        for thing in cast:
            same_shape = [t for t in cast if t.shape == thing.shape]
            assert (found.get(f"what colour is the {thing.shape}?") == thing.colour) == (len(same_shape) == 1)
            same_colour = [t for t in cast if t.colour == thing.colour]
            assert (found.get(f"what shape is {thing.colour}?") == thing.shape) == (len(same_colour) == 1)
            deed = found[f"what does the {thing.colour} {thing.shape} do?"]
            assert {"rest": "stays"}.get(deed, deed)[:4] == thing.motion[:4]
            goes = found.get(f"where does the {thing.colour} {thing.shape} go?")
            assert goes == (thing.motion.split()[1] if thing.motion.startswith("moves") else None)


def test_questions_where_something_is_agree_with_the_picture():
    asked = 0
    for clip in CLIPS:
        found = answers(clip)
        for actor in (actor for shot in clip.shots for actor in shot.actors):
            place = found.get(f"where is the {actor.thing.colour} {actor.thing.shape}?")
            if place is not None:
                x, y = actor.start
                side = {"left": 0.5 - x, "right": x - 0.5, "top": 0.5 - y, "bottom": y - 0.5}
                assert place == max(side, key=side.__getitem__) and side[place] > 0.05
                asked += 1
    assert asked > 100


def test_questions_have_one_word_answers_and_the_types_of_msrvtt_qa():
    for clip in CLIPS:
        for question in questions(clip):
            assert re.fullmatch(r"[a-z]+", question.answer)
            assert question.answer_type == question.question.split()[0]
            assert question.answer_type in ("what", "how", "where")


@pytest.mark.parametrize("index", range(5))
def test_the_action_is_what_the_largest_thing_does_first(index: int):
    clip = scene(0, "test", index)
    assert action(clip) == max(clip.shots[0].actors, key=lambda a: a.radius).thing.motion
