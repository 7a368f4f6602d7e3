"""Noun phrases of captions: the words that spatial grounding looks for in the video (section 3.3).

spaCy's noun chunks, as in the paper, when spaCy and one of its English pipelines are installed.  Otherwise an
offline chunker: TextBlob's bundled tagger, four repairs of its tags, and one chunk rule read by NLTK.  The
repairs rest on one observation.  The tagger calls a word it is unsure of a noun, and captions are full of
verbs that also name things ("moves", "drops", "turns"), so the words around decide: a verb agrees with its
subject, a clause has one finite verb, and nothing but a noun phrase follows an article.
"""

import functools
import importlib.util
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

Extractor = Literal["auto", "spacy", "rules"]
"""spaCy's parser, the offline rules, or spaCy where it has a pipeline and the rules where not."""
PIPELINES = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")

Phrases = tuple[str, ...]
Tagged = list[list[str]]
"""Tokens of a caption as [word, Penn Treebank tag]; the repairs change the tags in place."""

CHUNK = "NP: {<JJ.*>*<NN.*>+}"  # determiners, possessives and numbers stay outside: the prompts bring an article


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


QUANTIFIERS = _words("several many more most few fewer less much other another various such same own")
PRONOUNS = _words(
    "something someone somebody anything anyone anybody everything everyone everybody nothing nobody one "
    "ones other others another each both all some himself herself itself themselves"
)
PLACES = _words("left right front middle center centre top bottom side sides end beginning")
"""Said alone ("on the left", "in front of") these name no thing that could be pointed at."""
BE = _words("is are was were be been being am")
AUXILIARIES = BE | _words("has have had do does did can will")
ASPECTUAL = _words("begin start stop keep continue finish go come try")
"""Verbs with a participle as their object: "starts dancing", but "[water] drops falling"."""
SUBJECTS = _words("he she it they we i you who that which")
SUBORDINATORS = _words("while as when whereas because until before after since if where who that which")
PEOPLE = _words("man woman boy girl person lady guy child kid baby couple player dog cat")
"""Singular nouns after which an -ing word is what they do ("man dancing"), not a sport ("water skiing")."""
ARTICLES = _words("a an the his its their my your our")  # not "her", which is an object as well


def noun_phrases(captions: Iterable[str], extractor: str = "auto") -> list[Phrases]:
    """The noun phrases of each caption, in order of appearance, lower case, each once.

    Pronouns are left out, and leading determiners, possessives, numbers and quantifiers taken off ("his two
    red cars" is "red cars").  ``extractor`` is one of those of ``Extractor``.
    Raises ValueError for another one, and for "spacy" where no pipeline is installed.
    """
    return [_clean(chunks) for chunks in _chunker(extractor)(captions)]


def extractor_name(extractor: str = "auto") -> str:
    """What ``extractor`` is on this machine: "textblob+repairs" or, say, "spacy:en_core_web_sm".

    Raises ValueError as ``noun_phrases`` does.
    """
    if extractor not in get_args(Extractor):
        raise ValueError(f"extractor {extractor!r}: choose one of {', '.join(get_args(Extractor))}")
    pipeline = None if extractor == "rules" else _installed_pipeline()
    if extractor == "spacy" and pipeline is None:
        raise ValueError(
            f"extractor 'spacy': needs spaCy and one of {', '.join(PIPELINES)} as installed packages; "
            "install them or choose 'rules'"
        )
    return f"spacy:{pipeline}" if pipeline else "textblob+repairs"


def _chunker(extractor: str) -> Callable[[Iterable[str]], Iterator[list[list[str]]]]:
    name = extractor_name(extractor)
    if name.startswith("spacy:"):
        return functools.partial(_spacy_chunks, name.removeprefix("spacy:"))
    return _rule_chunks


def _clean(chunks: Iterable[Sequence[str]]) -> Phrases:
    phrases = []
    for chunk in chunks:
        words = list(itertools.dropwhile(QUANTIFIERS.__contains__, chunk))
        only = words[0] if len(words) == 1 else ""
        if words and words[-1] not in PRONOUNS and only not in PLACES and re.search(r"[^\W\d_]", words[-1]):
            phrases.append(" ".join(words))
    return tuple(dict.fromkeys(phrases))


# spaCy


def _installed_pipeline() -> str | None:
    if importlib.util.find_spec("spacy") is None:
        return None
    return next((name for name in PIPELINES if importlib.util.find_spec(name) is not None), None)


@functools.cache
def _spacy_pipeline(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import spacy

        return spacy.load(name, exclude=["ner"])


def _spacy_chunks(pipeline: str, captions: Iterable[str]) -> Iterator[list[list[str]]]:
    for doc in _spacy_pipeline(pipeline).pipe(captions, batch_size=256):
        chunks = []
        for chunk in doc.noun_chunks:
            if chunk.root.pos_ != "PRON":
                bare = itertools.dropwhile(lambda token: token.pos_ in ("DET", "PRON", "NUM", "PUNCT"), chunk)
                chunks.append([token.lower_ for token in bare])
        yield chunks


# Offline rules


def _rule_chunks(captions: Iterable[str]) -> Iterator[list[list[str]]]:
    parse, _, chunker = _rules()
    for caption in captions:
        sentences = parse(_plain(caption), chunks=False).split()
        tokens = [[word, tag] for sentence in sentences for word, tag in sentence]
        for repair in (_after_articles, _participles, _finite_verbs, _second_verbs):
            repair(tokens)
        tree = chunker.parse([(word, tag) for word, tag in tokens]) if tokens else []
        yield [[word for word, _ in node] for node in tree if not isinstance(node, tuple)]


def _plain(caption: str) -> str:
    """The caption as the tagger likes it: lower case, a blank after commas, contractions spelt out."""
    text = caption.lower().replace("/", " ").replace("\u2019", "'")
    text = re.sub(r"([,;:!?])(?=[^\W\d])", r"\1 ", text)
    text = re.sub(r"'(re|ve|ll|m|d)\b", " are", text.replace("n't", " not"))
    return " ".join(text.split())


@functools.cache
def _rules() -> tuple[Any, Any, Any]:
    """TextBlob's parser, lemminflect's lexicon and NLTK's chunker, loaded once, their warnings kept in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lemminflect import getAllLemmas
        from nltk.chunk.regexp import RegexpParser
        from textblob.en import parse

        parse("a man walks")  # its word lists are read on first use, from files that it leaves open
        getAllLemmas("walks")
        return parse, getAllLemmas, RegexpParser(CHUNK)


@functools.lru_cache(maxsize=65536)
def _lemmas(word: str) -> dict[str, tuple[str, ...]]:
    """What ``word`` may be a form of: {"NOUN": ("drop",), "VERB": ("drop",)}."""
    lemmas: dict[str, tuple[str, ...]] = _rules()[1](word)
    return lemmas


def _verb_lemma(word: str) -> str | None:
    return next(iter(_lemmas(word).get("VERB", ())), None)


def _third_person(word: str) -> bool:
    return word.endswith("s") and _verb_lemma(word) not in (None, word)


def _tag(tokens: Tagged, index: int) -> str:
    """The tag at ``index``, "." beyond either end."""
    return tokens[index][1] if 0 <= index < len(tokens) else "."


def _word(tokens: Tagged, index: int) -> str:
    return tokens[index][0] if 0 <= index < len(tokens) else ""


def _is_noun(tokens: Tagged, index: int) -> bool:
    return _tag(tokens, index).startswith("NN")


def _after_articles(tokens: Tagged) -> None:
    """Repair 1: after an article stands a noun phrase, never a verb ("a stick", "a parked car")."""
    for i, (word, tag) in enumerate(tokens):
        first = i - 1
        while _tag(tokens, first).startswith("JJ"):
            first -= 1
        article = _word(tokens, first)
        if article not in ARTICLES and not (article == "her" and tag != "VBG"):
            continue
        before_noun = re.match("NN|JJ|VBG", _tag(tokens, i + 1)) is not None
        if tag in ("VBG", "VBN", "VBD"):
            tokens[i][1] = "JJ" if before_noun else "NN"
        elif tag.startswith("VB") and word not in AUXILIARIES:
            tokens[i][1] = "NN"
        elif tag == "JJ" and "-" in word and not before_noun:
            tokens[i][1] = "NN"  # words with a hyphen are adjectives to the tagger: "a black t-shirt"


def _participles(tokens: Tagged) -> None:
    """Repair 2: a participle outside noun phrases is a verb ("slicing onions", "people surfing")."""
    for i, (word, tag) in enumerate(tokens):
        if tag == "VBG":
            modifies = _tag(tokens, i - 1) in ("JJ", "CD") and _is_noun(tokens, i + 1)
            tokens[i][1] = "JJ" if modifies else "VB"
            if _tag(tokens, i - 1) == "NN" and _word(tokens, i - 2) in BE:
                tokens[i - 1][1] = "VB"  # "are arm wrestling"
        elif tag == "NN" and word.endswith("ing") and _verb_lemma(word):
            before, after = _tag(tokens, i - 1), _tag(tokens, i + 1)
            actor = before == "NNS" or _word(tokens, i - 1) in PEOPLE
            acting = before.startswith("NN") and after in ("DT", "PRP$", "PRP", "NNS")
            no_noun = "NOUN" not in _lemmas(word) and before not in ("DT", "JJ", "PRP$") and after != "NN"
            if actor or acting or no_noun:
                tokens[i][1] = "VB"


def _finite_verbs(tokens: Tagged) -> None:
    """Repair 3: a clause without a verb gets the first noun that agrees with its subject and may be one."""
    has_verb, plural, singular = False, False, False
    for i, (word, tag) in enumerate(tokens):
        joined = tag in ("CC", ",") and has_verb and _tag(tokens, i + 1) in ("DT", "PRP$", "CD", "PRP", "RB")
        if word in SUBORDINATORS or tag in (".", ":") or joined:
            has_verb = plural = singular = False
        agrees = (_third_person(word) and (singular or plural)) or (plural and _verb_lemma(word) == word)
        finite = agrees and not has_verb and _may_be_verb(tokens, i)
        if tag.startswith("NN") and (finite or _is_infinitive(tokens, i)):
            tokens[i][1] = tag = "VBZ"
        if tag in ("VBZ", "VBP", "VBD", "MD") or (tag == "VB" and not word.endswith("ing")):
            has_verb = True
        elif tag == "NNS" or word in ("they", "we", "you", "people") or (word == "and" and singular):
            plural = True
        elif tag.startswith("NN") or word in SUBJECTS:
            singular = True


def _is_infinitive(tokens: Tagged, i: int) -> bool:
    """Whether the noun at ``i`` is "paint" in "begins to paint the wall" or "move" in "does not move"."""
    if _verb_lemma(_word(tokens, i)) != _word(tokens, i):
        return False
    auxiliary = i - 1 - (_word(tokens, i - 1) == "not")
    to_do = _tag(tokens, i - 1) == "TO" and _tag(tokens, i + 1) in ("DT", "PRP$")
    return to_do or _word(tokens, auxiliary) in ("do", "does", "did", "can", "will")


def _may_be_verb(tokens: Tagged, i: int) -> bool:
    """Whether the noun at ``i`` stands where a finite verb could stand."""
    word, before, after = _word(tokens, i), _tag(tokens, i - 1), _tag(tokens, i + 1)
    if before in ("DT", "PRP$", "CD", "TO", "CC", ",") or (before == "IN" and _tag(tokens, i - 2) != "IN"):
        return False
    if before.startswith("JJ") and _tag(tokens, i - 2) != "IN":  # "[the guy in] red jumps", not "a red jump"
        return False
    if before == "NN" and _tag(tokens, i - 2) == "IN":  # "[a plate of] fish cakes"
        return False
    if not _third_person(word) and before != "NNS" and after.startswith("NN"):  # "[a red] bow tie talks"
        return False
    return not re.match("VB[ZPD]|MD", after) and (after != "VB" or _verb_lemma(word) in ASPECTUAL)


def _second_verbs(tokens: Tagged) -> None:
    """Repair 4: after "and", a comma or "then" may come a verb with the same subject ("and pans out")."""
    for i, (word, tag) in enumerate(tokens):
        joint = i - 1
        while _tag(tokens, joint) == "RB":
            joint -= 1
        joined = _tag(tokens, joint) in ("CC", ",") or _word(tokens, i - 1) == "then"
        if not (joined and tag.startswith("NN") and _verb_lemma(word)):
            continue
        before, after = _tag(tokens, joint - 1), _tag(tokens, i + 1)
        if re.match("VB[ZPD]|MD", after) or (after == "VB" and _verb_lemma(word) not in ASPECTUAL):
            continue  # the verb is still to come
        same_form = before.startswith("VB") and _third_person(word) == _third_person(_word(tokens, joint - 1))
        second = any(re.match("VB[ZPD]", earlier) for _, earlier in tokens[:joint]) and _third_person(word)
        goes_on = re.match("DT|PRP", after) or (before != "NNS" and re.match("RB|RP|IN|TO|NN|JJ|VB", after))
        if same_form or (second and goes_on):
            tokens[i][1] = "VBZ"
