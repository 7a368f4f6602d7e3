"""Noun phrases: a gold set with the F1 it must reach, and each repair by the sentence that needs it."""

import importlib.util
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svilm.data import nouns
from svilm.data.nouns import extractor_name, noun_phrases

# Written by hand: phrases without determiners, possessives and numbers.  Some are wrong today and stay in.
GOLD = {
    # everyday clips
    "two boys are arm wrestling across a wooden table": "boys; wooden table",
    "a boy in a white shirt pushes the hand of a girl": "boy; white shirt; hand; girl",
    "two men walk towards each other in a white room": "men; white room",
    "two men hug each other beside a desk": "men; desk",
    "a boy in a blue shirt dribbles a ball under the hoop": "boy; blue shirt; ball; hoop",
    "a hose floats in blue water while a man vacuums the pool": "hose; blue water; man; pool",
    "a grey rabbit crawls out of a hole under a tree": "grey rabbit; hole; tree",
    "a fat rabbit stretches its arms on the grass": "fat rabbit; arms; grass",
    "a white bus seen from above drives down a road": "white bus; road",
    "cars drive behind a black fence in a city square": "cars; black fence; city square",
    "a man walks past a parked bicycle on the pavement": "man; parked bicycle; pavement",
    "a man in a suit and a red bow tie talks in a moving car": "man; suit; red bow tie; moving car",
    "a hand takes away the left bottle": "hand; left bottle",
    "a hand puts the third bottle on the right": "hand; third bottle",
    "one water bottle is left on the table": "water bottle; table",
    "a silver car and a red car pass each other": "silver car; red car",
    "a man in black stands at the table with his hands at his face": "man; table; hands; face",
    "a man stands in front of a table": "man; table",
    "a woman holds a frying pan in the kitchen": "woman; frying pan; kitchen",
    "a person is slicing onions in a kitchen": "person; onions; kitchen",
    "a man cuts a tree and his friend claps": "man; tree; friend",
    # the drawn world
    "a red circle moves left while a small blue star spins": "red circle; small blue star",
    "first a green ring shrinks, then two yellow squares bounce": "green ring; yellow squares",
    "a large purple triangle moves right": "large purple triangle",
    "the white square blinks as a tiny orange circle grows": "white square; tiny orange circle",
    "a cyan ring spins and a red cross moves up": "cyan ring; red cross",
    "a yellow star bounces, then the scene changes to a blue square": "yellow star; scene; blue square",
    # long, told in sentences
    "A horse riding lesson is shown.": "horse riding lesson",
    "A woman is seen talking to the camera and zooms out into more women beside her.": "woman; camera; women",
    "The second boy then starts performing skateboard tricks while waving to the crowd.": (
        "second boy; skateboard tricks; crowd"
    ),
    "Several clips of horses are shown running as well as riders on the horses.": "clips; horses; riders",
    "The trainer helps the girl in blue with the proper arm position and jumping technique.": (
        "trainer; girl; proper arm position; jumping technique"
    ),
    "She rides the skateboard around the city, doing tricks and turns.": "skateboard; city; tricks; turns",
    "The woman then puts her hair in a ponytail and smiles at the camera.": "woman; hair; ponytail; camera",
    "A little girl jumps rope while others watch on the side.": "little girl; rope",
    "The camera pans around the room and shows people dancing.": "camera; room; people",
    "They play a game of beer pong and the crowd cheers.": "game; beer pong; crowd",
    "The man throws the javelin and walks away.": "man; javelin",
    # stock footage titles
    "Slow motion of water drops falling on a green leaf": "slow motion; water drops; green leaf",
    "Young couple drinking coffee at a sidewalk cafe": "young couple; coffee; sidewalk cafe",
}
# Written before the rules were first run on them, and never used to change the rules.
UNSEEN = {
    "a dog chases a tennis ball across the lawn": "dog; tennis ball; lawn",
    "two women paddle a yellow kayak down a river": "women; yellow kayak; river",
    "the chef chops carrots and pours oil into a hot pan": "chef; carrots; oil; hot pan",
    "an old man plays the accordion on a street corner": "old man; accordion; street corner",
    "Children run through the sprinkler while their mother watches": "children; sprinkler; mother",
    "A close up of a bee landing on a purple flower.": "close up; bee; purple flower",
    "a green square blinks and a large red ring moves down": "green square; large red ring",
    "the orange star grows, then it bounces up and down": "orange star",
    "a skier jumps over a snow ramp and lands on his back": "skier; snow ramp; back",
    "The lady then brushes the horse's mane and talks to the camera.": "lady; horse; mane; camera",
    "A group of people are seen standing around a bowling alley.": "group; people; bowling alley",
    "He continues rubbing wax on the skis and shows off the finished board.": "wax; skis; finished board",
    "Aerial view of waves crashing on a rocky beach at sunset": "aerial view; waves; rocky beach; sunset",
    "a train passes a small station and disappears into a tunnel": "train; small station; tunnel",
    "a girl in a pink dress blows soap bubbles in the park": "girl; pink dress; soap bubbles; park",
    "three white ducks swim left while a black swan turns around": "white ducks; black swan",
    "a mechanic is changing the tire of a blue truck": "mechanic; tire; blue truck",
    "A boy lifts a heavy barbell over his head and drops it on the floor.": "boy; heavy barbell; head; floor",
    "the camera zooms in on a glass of orange juice": "camera; glass; orange juice",
    "a drummer hits the cymbals and the crowd cheers": "drummer; cymbals; crowd",
    "smoke rises from the chimney of a wooden cabin": "smoke; chimney; wooden cabin",
    "a person puts on a contact lens in front of a mirror": "person; contact lens; mirror",
    "a cat sleeps on a laptop keyboard as snow falls outside": "cat; laptop keyboard; snow",
    "the tall man holding an umbrella waits for the bus": "tall man; umbrella; bus",
    "a woman paints her nails and waves goodbye to the viewers": "woman; nails; viewers",
}


def phrases(caption: str) -> tuple[str, ...]:
    return noun_phrases([caption], "rules")[0]


def f1(gold: dict[str, str]) -> float:
    """Micro-averaged over exact phrases."""
    right = found = wanted = 0
    for caption, listed in gold.items():
        want, got = set(listed.split("; ")), set(phrases(caption))
        right, found, wanted = right + len(want & got), found + len(got), wanted + len(want)
    return 2 * right / (found + wanted)


def test_gold_set() -> None:
    assert f1(GOLD) >= 0.96


def test_unseen_captions() -> None:
    assert f1(UNSEEN) >= 0.95


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        # 1: after an article stands a noun phrase
        ("a man holds the stick", ("man", "stick")),
        ("a hand takes the left bottle", ("hand", "left bottle")),
        ("a woman in a black t-shirt", ("woman", "black t-shirt")),
        ("she drinks from her cup", ("cup",)),
        # 2: participles
        ("a person is slicing onions", ("person", "onions")),
        ("the swimming pool is empty", ("swimming pool",)),
        ("people surfing in the ocean", ("people", "ocean")),
        ("a square contracting and a ring expanding", ("square", "ring")),
        # 3: finite verbs
        ("a boy dribbles a ball", ("boy", "ball")),
        ("a fat rabbit stretches its arms", ("fat rabbit", "arms")),
        ("two men hug each other", ("men",)),
        ("a red circle moves left", ("red circle",)),
        ("the guy in red jumps over a fence", ("guy", "fence")),
        ("a star does not move", ("star",)),
        ("she begins to paint the wall", ("wall",)),
        ("a plate of fish cakes on a table", ("plate", "fish cakes", "table")),
        # 4: second verbs
        ("the camera zooms out and pans around the room", ("camera", "room")),
        ("the man lifts the weight, drops it and walks away", ("man", "weight")),
        ("a dog and cats in a garden", ("dog", "cats", "garden")),
    ],
)
def test_repairs(caption: str, expected: tuple[str, ...]) -> None:
    assert phrases(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("his two red cars and several other cars", ("red cars", "cars")),
        ("a dog looks at a dog", ("dog",)),
        ("he gives it to someone", ()),
        ("the man stands in front of the left door on the right", ("man", "left door")),
        ("A MAN IN A BLACK T-SHIRT", ("man", "black t-shirt")),
        ("a cat,a dog;a bird", ("cat", "dog", "bird")),
        ("the horse\u2019s mane", ("horse", "mane")),
        ("", ()),
        ("!!! 123 ...", ()),
    ],
)
def test_cleaning(caption: str, expected: tuple[str, ...]) -> None:
    assert phrases(caption) == expected


@given(st.text(max_size=60))
def test_any_text_gives_clean_phrases(caption: str) -> None:
    for phrase in phrases(caption):
        assert phrase and phrase == phrase.lower().strip() and "\n" not in phrase


def test_order_and_number_of_captions_are_kept() -> None:
    assert noun_phrases(iter(["a dog", "", "a cat"]), "rules") == [("dog",), (), ("cat",)]


def test_extractor_names() -> None:
    assert extractor_name("rules") == "textblob+repairs"
    with pytest.raises(ValueError, match="choose one of auto, spacy, rules"):
        extractor_name("parser")


def test_spacy_without_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nouns, "_installed_pipeline", lambda: None)
    assert extractor_name() == "textblob+repairs"
    with pytest.raises(ValueError, match=r"spacy.*needs spaCy and one of en_core_web_trf"):
        noun_phrases(["a dog"], "spacy")


@pytest.mark.skipif(importlib.util.find_spec("spacy") is None, reason="spaCy is not installed")
def test_spacy_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline whose parser knows one sentence: chunks lose determiners and pronouns are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import spacy
        from spacy.tokens import Doc

    class Pipeline:
        vocab = spacy.blank("en").vocab

        def pipe(self, captions: list[str], batch_size: int) -> Any:
            for caption in captions:
                words = caption.split()
                yield Doc(
                    self.vocab,
                    words,
                    pos=["PRON", "VERB", "DET", "NUM", "ADJ", "NOUN"],
                    deps=["nsubj", "ROOT", "det", "nummod", "amod", "dobj"],
                    heads=[1, 1, 5, 5, 5, 1],
                )

    monkeypatch.setattr(nouns, "_installed_pipeline", lambda: "en_core_web_sm")
    monkeypatch.setattr(nouns, "_spacy_pipeline", lambda name: Pipeline())
    assert extractor_name() == "spacy:en_core_web_sm"
    assert noun_phrases(["He sees the two Red cars"]) == [("red cars",)]
