"""What is said about a drawn scene: captions from a small grammar, noun phrases, questions with answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from random import Random

from svilm.data.world.scenes import Actor, Scene, Thing, pick, random_stream

VERBS: dict[str, tuple[tuple[str, str], ...]] = {
    "moves left": (
        ("moves left", "moving left"),
        ("slides left", "sliding left"),
        ("drifts to the left", "drifting to the left"),
        ("goes left", "going left"),
    ),
    "moves right": (
        ("moves right", "moving right"),
        ("slides right", "sliding right"),
        ("drifts to the right", "drifting to the right"),
        ("goes right", "going right"),
    ),
    "moves up": (
        ("moves up", "moving up"),
        ("rises", "rising"),
        ("floats upwards", "floating upwards"),
        ("goes up", "going up"),
    ),
    "moves down": (
        ("moves down", "moving down"),
        ("sinks", "sinking"),
        ("falls slowly", "falling slowly"),
        ("goes down", "going down"),
    ),
    "spins": (("spins", "spinning"), ("rotates", "rotating"), ("turns around", "turning around")),
    "grows": (("grows", "growing"), ("gets bigger", "getting bigger"), ("expands", "expanding")),
    "shrinks": (
        ("shrinks", "shrinking"),
        ("gets smaller", "getting smaller"),
        ("becomes smaller", "becoming smaller"),
    ),
    "blinks": (("blinks", "blinking"), ("flashes", "flashing"), ("flickers", "flickering")),
    "bounces": (("bounces", "bouncing"), ("hops", "hopping"), ("jumps up and down", "jumping up and down")),
    "stays still": (("stays still", "staying still"), ("rests", "resting"), ("does not move", "not moving")),
}
"""Each motion as finite verb and as participle, in several wordings that no other motion shares."""

# s: noun phrase with its article, v: finite verb, g: participle; the numbers are the order of mention.
_FORMS = {
    1: ("{s0} {v0}", "there is {s0} {g0}", "{s0} is {g0}", "we see {s0} {g0}", "here {s0} {v0}"),
    2: (
        "{s0} {v0} while {s1} {v1}",
        "{s0} {v0} and {s1} {v1}",
        "as {s0} {v0}, {s1} {v1}",
        "there is {s0} {g0} and {s1} {g1}",
        "we see {s0} {g0} and {s1} {g1}",
        "{s0} is {g0} and {s1} is {g1}",
        "{s0} {g0} with {s1} {g1}",
    ),
    3: (
        "{s0} {v0}, {s1} {v1} and {s2} {v2}",
        "{s0} {v0} while {s1} {v1} and {s2} {v2}",
        "there is {s0} {g0}, {s1} {g1} and {s2} {g2}",
        "we see {s0} {g0}, {s1} {g1} and {s2} {g2}",
    ),
}
_IN_TURN = ("first {}, then {}", "{}, then {}", "{} before {}", "at first {}, later {}")
"""Two shots, each as plain clauses."""
_SETTINGS = ("over a {} background", "on a {} background", "against a {} background")

_DEEDS = {"stays still": "rest", "spins": "spin", "grows": "grow", "shrinks": "shrink", "blinks": "blink"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Caption:
    """A sentence about a scene, and its noun phrases in order of mention: lower case, without articles."""

    text: str
    nouns: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A question with its one-word answer, and its type as MSRVTT-QA has them: what, how, where."""

    question: str
    answer: str
    answer_type: str


def captions(scene: Scene, number: int) -> tuple[Caption, ...]:
    """The first ``number`` wordings of a scene, all different, each telling all that the scene shows.

    Caption k does not depend on how many are asked for.
    """
    found: dict[str, Caption] = {}
    for wording in count():
        caption = _caption(scene, random_stream(scene.seed, scene.split, scene.index, "caption", wording))
        found.setdefault(caption.text, caption)
        if len(found) >= number:
            break
    return tuple(islice(found.values(), number))


def phrases(thing: Thing) -> tuple[str, ...]:
    """What a thing may be called: "red circle", or also "small red circle"."""
    plain = f"{thing.colour} {thing.shape}"
    return (f"{thing.size} {plain}", plain) if thing.size else (plain,)


def with_article(phrase: str) -> str:
    """ "an orange ring", "a large orange ring"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def sentence(things: Sequence[Thing], rng: Random, *, clauses: bool = False) -> Caption:
    """A sentence on one to three things, in the order given; ``clauses``: one that fits behind "first"."""
    words: dict[str, str] = {}
    nouns = []
    for k, thing in enumerate(things):
        noun = phrases(thing)[0] if rng.random() < 0.75 else phrases(thing)[-1]
        words[f"s{k}"] = with_article(noun)
        words[f"v{k}"], words[f"g{k}"] = pick(rng, VERBS[thing.motion])
        nouns.append(noun)
    if clauses:
        form = " and ".join(f"{{s{k}}} {{v{k}}}" for k in range(len(things)))
    elif len(things) == 2 and things[0].motion == things[1].motion and rng.random() < 0.5:
        form = "{s0} and {s1} are both {g0}"
    else:
        form = pick(rng, _FORMS[len(things)])
    return Caption(form.format(**words), tuple(nouns))


def _caption(scene: Scene, rng: Random) -> Caption:
    casts = [_shuffled([actor.thing for actor in shot.actors], rng) for shot in scene.shots]
    if len(casts) == 2:
        first, second = (sentence(things, rng, clauses=True) for things in casts)
        return Caption(pick(rng, _IN_TURN).format(first.text, second.text), first.nouns + second.nouns)
    caption = sentence(casts[0], rng)
    if len(casts[0]) <= 2 and rng.random() < 0.25:  # more words would not fit into the 32 tokens of the paper
        setting = pick(rng, _SETTINGS).format(scene.shots[0].background.texture)
        return Caption(f"{caption.text} {setting}", caption.nouns)
    return caption


def questions(scene: Scene) -> tuple[Question, ...]:
    """All that can be asked about a scene with one sure answer."""
    actors = [actor for shot in scene.shots for actor in shot.actors]
    colours = [actor.thing.colour for actor in actors]
    shapes = [actor.thing.shape for actor in actors]
    found = [Question("how many shapes are there?", _NUMBERS[len(actors)], "how")]
    for actor in actors:
        thing = actor.thing
        name = f"the {thing.colour} {thing.shape}"
        if shapes.count(thing.shape) == 1:
            found.append(Question(f"what colour is the {thing.shape}?", thing.colour, "what"))
        if colours.count(thing.colour) == 1:
            found.append(Question(f"what shape is {thing.colour}?", thing.shape, "what"))
        found.append(Question(f"what does {name} do?", _deed(thing.motion), "what"))
        if thing.motion.startswith("moves "):
            found.append(Question(f"where does {name} go?", thing.motion.removeprefix("moves "), "where"))
        elif place := _place(actor):
            found.append(Question(f"where is {name}?", place, "where"))
    if len(scene.shots) == 2 and len(scene.shots[1].actors) == 1:
        last = scene.shots[1].actors[0].thing
        found.append(Question("what shape appears after the scene change?", last.shape, "what"))
    return tuple(found)


def action(scene: Scene) -> str:
    """The label of the clip: the motion of the largest thing of its first shot."""
    return scene.shots[0].actors[0].thing.motion


def _deed(motion: str) -> str:
    return "move" if motion.startswith("moves ") else _DEEDS.get(motion, "bounce")


def _place(actor: Actor) -> str | None:
    """Left, right, top or bottom where that is plain, for a thing that stays where it is."""
    across, along = (place - 0.5 for place in actor.start)
    if actor.thing.motion == "bounces" or abs(abs(across) - abs(along)) < 0.1:
        return None
    if abs(across) > abs(along):
        return "left" if across < 0 else "right"
    return "top" if along < 0 else "bottom"


def _shuffled(things: Sequence[Thing], rng: Random) -> list[Thing]:
    """The order of mention says nothing about who is the largest."""
    return [thing for _, thing in sorted(((rng.random(), t) for t in things), key=lambda pair: pair[0])]
