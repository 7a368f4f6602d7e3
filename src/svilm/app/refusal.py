"""What the page's server says when it does not do what was asked: a status, a sentence, and a remedy."""

from starlette.responses import JSONResponse


class Refusal(Exception):
    """A request that is not answered as asked; ``status`` is HTTP's, both texts are for people.

    ``retry_after`` is a number of seconds after which the same request may well succeed.
    """

    def __init__(
        self, status: int, error: str, remedy: str, *, retry_after: int = 0, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, error, remedy)
        self.status, self.error, self.remedy = status, error, remedy
        self.headers = {**(headers or {}), **({"Retry-After": str(retry_after)} if retry_after else {})}

    def response(self) -> JSONResponse:
        """The same as JSON: ``{"error": ..., "remedy": ...}``."""
        return JSONResponse({"error": self.error, "remedy": self.remedy}, self.status, self.headers)


def busy(seconds: int = 2) -> Refusal:
    """The refusal of a server that has enough to do."""
    return Refusal(
        503, "too many requests at once", f"the server is busy; try again in {seconds} seconds", retry_after=seconds
    )


def gone() -> Refusal:
    """The refusal of a video that cannot be read any more."""
    return Refusal(410, "the file is no longer there, or no longer what was indexed", "run svilm index again")
