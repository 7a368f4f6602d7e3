"""What is asked for in words, without what no text has."""

LONGEST_QUERY = 1000
"""Characters of a query."""


def cleaned(words: object, what: str = "query", example: str = "a man driving a tractor") -> str:
    """Words without zeros, broken characters and spaces that say nothing.

    ``what`` names the argument in errors.  Raises TypeError for what is no text, ValueError for an empty or overlong
    one.
    """
    if not isinstance(words, str):
        raise TypeError(f"{what}: {words!r} is of type {type(words).__name__}; give one text, such as {example!r}")
    if len(words) > LONGEST_QUERY:
        raise ValueError(f"a {what} of {len(words)} characters; at most {LONGEST_QUERY} are read")
    text = " ".join(words.encode("utf-8", "replace").decode("utf-8").replace("\0", " ").split())
    if not text:
        raise ValueError(f"an empty {what}; describe what you look for, such as {example!r}")
    return text
