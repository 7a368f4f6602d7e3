"""Names of classes as people write them: "ApplyEyeMakeup" and "brush_hair" into words."""

import re

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where a word begins inside a name written in one piece: "EyeMakeup", "TVShow"."""


def readable(name: str) -> str:
    """The class in lower-case words, for captions and for templates such as "a video of a person {}".

    Underscores become blanks; a name in one piece is cut before its capitals.  A name that has blanks or
    underscores is cut there only, so that "watching YouTube" keeps its words.
    """
    words = name.replace("_", " ").split()
    if len(words) == 1:
        words = _WORDS.sub(" ", words[0]).split()
    return " ".join(words).lower() or name
