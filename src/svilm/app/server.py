"""The page's server: an index in, a guarded web application out."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from svilm.app import pictures
from svilm.app.catalogue import MOST_IDEAS, Catalogue, ideas_of_model, ideas_of_names, points
from svilm.app.crew import Crew, Shelf
from svilm.app.guard import Guard
from svilm.app.media import MediaResponse
from svilm.app.refusal import Refusal, gone
from svilm.search.index import Index
from svilm.search.records import Filter, Hit
from svilm.search.store import Vector

T = TypeVar("T")

LONGEST_QUERY = 300
LONGEST_TOLD = 40
"""Characters of a wrong value that an answer repeats."""
"""Characters."""
MOST_RESULTS = 96
MOST_TIMELINES = 24
"""Videos whose time lines are sent in one answer."""
LARGEST_PICTURE = 8 << 20
"""Bytes of a picture to search with."""
UPLOAD_SECONDS = 20.0
LOOK_SECONDS = 2.0
"""From one look at the index, whether it was changed, to the next."""
PAGE = Path(__file__).with_name("page")
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

Words = Annotated[str, Query(min_length=1, max_length=LONGEST_QUERY)]
Second = Annotated[float, Query(ge=0, allow_inf_nan=False)]
Id = Annotated[str, Query(pattern="^[0-9a-f]{18}$")]

log = logging.getLogger(__name__)


def create_app(
    index: Index, *, host: str = "127.0.0.1", token: str = "", names: Sequence[str] = (), ideas: Sequence[str] = ()
) -> Guard:
    """The web application of an index, for a server that is bound to ``host``.

    ``token`` and ``names`` as in `Guard`; ``ideas`` are queries to try, instead of those made of file names.
    Raises ValueError where the page would be open to others without a token.
    """
    desk = Desk(index, ideas)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=desk.warm_up, name="svilm-app-model", daemon=True).start()
        keeping_up = asyncio.create_task(desk.keep_up())
        yield
        keeping_up.cancel()
        desk.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, redirect_slashes=False)
    actions: dict[str, Callable[..., Any]] = {
        "/api/index": desk.about,
        "/api/search": desk.search,
        "/api/like": desk.like,
        "/api/timelines": desk.timelines,
        "/api/heat": desk.heat,
        "/api/film": desk.film,
        "/poster/{video}": desk.poster,
        "/media/{video}": desk.media,
    }
    for path, action in actions.items():
        app.add_api_route(path, action, methods=["GET", "HEAD"], response_model=None)
    app.add_api_route("/api/picture", desk.search_picture, methods=["POST"], response_model=None)
    for file in PAGE.iterdir():
        if file.suffix in KINDS:
            name = "" if file.name == "index.html" else file.name
            app.add_api_route(f"/{name}", _served(file), methods=["GET", "HEAD"], response_model=None)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, _failed)
    return Guard(app, host=host, token=token, names=names)


class Desk:
    """Answers to the page's questions; what takes time is done by crews of bounded size."""

    def __init__(self, index: Index, ideas: Sequence[str]) -> None:
        self.index, self.catalogue = index, Catalogue(index)
        self.ideas = list(ideas) or ideas_of_names(index.videos)
        self.asking, self.grounding, self.drawing = Crew(2, 48), Crew(1, 12), Crew(2, 96)
        self.stills, self.films = Shelf(48 << 20), Shelf(48 << 20)
        self.model_state = "loading"

    def warm_up(self) -> None:
        """Load the model and the noun finder, which both wait for the first query otherwise."""
        try:
            self.index.nouns("a red circle")
            if len(self.ideas) < MOST_IDEAS // 2:
                self.ideas = [*self.ideas, *ideas_of_model(self.index)][:MOST_IDEAS]
            else:
                self.index.search(self.ideas[0], 1)
        except Exception as error:  # noqa: BLE001  # the page says so, and its other parts work
            log.error("the model of the index cannot be used: %s", error)
            self.model_state = "failed"
        else:
            self.model_state = "ready"

    async def keep_up(self) -> None:
        """Show what is indexed while the page is served."""
        said = ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if await asyncio.to_thread(self.index.refresh):
                    self.catalogue = Catalogue(self.index)
            except Exception as error:  # noqa: BLE001  # what was read before is still shown
                if said != str(error):
                    log.error("the index cannot be read again: %s", error)
                said = str(error)

    def close(self) -> None:
        """End the threads."""
        for crew in (self.asking, self.grounding, self.drawing):
            crew.close()

    async def about(self) -> Any:
        """What is indexed."""
        return await self.drawing.do(lambda: self.catalogue.as_json(self.model_state, self.ideas))

    async def search(
        self,
        q: Words,
        k: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 12,
        folder: Annotated[str, Query(max_length=1000)] = "",
        shortest: Second = 0.0,
        longest: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
    ) -> Any:
        """The moments nearest to a text, and the nouns in it."""
        query, where = _cleaned(q), _filter(folder, shortest, longest)

        def work() -> dict[str, Any]:
            hits = self.index.search(query, k + 1, where)
            return {"query": query, "nouns": list(self.index.nouns(query)), **self._page_of(hits, k)}

        return await self.asking.do(work)

    async def like(
        self,
        video: Id,
        start: Second,
        end: Second,
        k: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 12,
        folder: Annotated[str, Query(max_length=1000)] = "",
        shortest: Second = 0.0,
        longest: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
    ) -> Any:
        """The moments nearest to a moment of the index."""
        moment, where = self.catalogue.moment(video, start, end), _filter(folder, shortest, longest)
        about = self.catalogue.video_json(self.catalogue.video(video))

        def work() -> dict[str, Any]:
            path = self._path(moment.video)
            vector = self.index.encode_like(path, start=moment.start, end=moment.end)
            return {"like": about, **self._page_like(vector, k, where)}

        return await self.asking.do(_readable(work))

    async def search_picture(
        self,
        request: Request,
        k: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 12,
        folder: Annotated[str, Query(max_length=1000)] = "",
        shortest: Second = 0.0,
        longest: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
    ) -> Any:
        """The moments nearest to a picture, which is the body of the request."""
        where = _filter(folder, shortest, longest)
        data = await _body(request)

        def work() -> dict[str, Any]:
            return self._page_like(self.index.encode_like(pictures.query_picture(data)), k, where)

        return await self.asking.do(work)

    async def timelines(
        self, q: Words, video: Annotated[list[Id], Query(min_length=1, max_length=MOST_TIMELINES)]
    ) -> Any:
        """How near each moment of some videos is to a text, by the videos' ids."""
        wanted = {name: self.catalogue.video(name).video for name in video}
        query = _cleaned(q)
        return await self.asking.do(
            lambda: {name: points(self.index.timeline(query, path)) for name, path in wanted.items()}
        )

    async def heat(
        self, video: Id, start: Second, end: Second, noun: Annotated[str, Query(min_length=1, max_length=80)]
    ) -> Any:
        """Where a noun is in a moment: a film of overlays.  404 for a model that cannot say."""
        if not self.index.can_ground:
            raise Refusal(
                404,
                f"the model {self.catalogue.model_name} has no group tokens, so it cannot show where a noun is",
                "index the videos with a model that svilm trained",
            )
        moment, noun = self.catalogue.moment(video, start, end), _cleaned(noun, "noun")

        def work() -> bytes:
            self._path(moment.video)
            return json.dumps(pictures.heat_film(self.index.ground(moment, noun)).as_json()).encode()

        key = ("heat", video, moment, noun)
        data = await self.films.get(key, lambda: self.grounding.do(_readable(work)))
        return Response(data, media_type="application/json", headers={"Cache-Control": "private, max-age=600"})

    async def film(self, video: Id, start: Second, end: Second) -> Any:
        """A moment as stills, for a browser that cannot play the video."""
        moment = self.catalogue.moment(video, start, end)

        def work() -> bytes:
            return json.dumps(pictures.moment_film(self._path(moment.video), start, end).as_json()).encode()

        data = await self.films.get(("film", video, moment), lambda: self.drawing.do(_readable(work)))
        return Response(data, media_type="application/json", headers={"Cache-Control": "private, max-age=600"})

    async def poster(self, video: str, at: Second = 0.0) -> Any:
        """The frame of a video at a second."""
        path = self.catalogue.video(video).video
        key = (video, at)
        data = await self.stills.get(
            key, lambda: self.drawing.do(_readable(lambda: pictures.poster(self._path(path), at)))
        )
        return Response(data, media_type="image/webp", headers={"Cache-Control": "private, max-age=600"})

    async def media(self, video: str) -> Any:
        """The bytes of a video, or a range of them."""
        path = self.catalogue.video(video).video
        return MediaResponse(self.index.root, await asyncio.to_thread(self._path, path))

    def _page_of(self, hits: list[Hit], k: int) -> dict[str, Any]:
        catalogue = self.catalogue
        more = len(hits) > k < MOST_RESULTS
        return {"hits": catalogue.hits_json(hits[:k]), "more": more, "version": catalogue.version}

    def _page_like(self, vector: Vector, k: int, where: Filter) -> dict[str, Any]:
        """With the time lines of what was found, since nobody can ask for them by an example later."""
        page = self._page_of(self.index.search(vector, k + 1, where), k)
        videos = {hit["id"]: hit["video"] for hit in page["hits"] if hit["video"] in self.index.videos}
        some = list(videos.items())[:MOST_TIMELINES]
        return {**page, "timelines": {name: points(self.index.timeline(vector, video)) for name, video in some}}

    def _path(self, video: str) -> Path:
        """The real file of a video.  Raises a Refusal (410) where it is gone, another, or out of the folder by now."""
        try:
            path = self.index.path_of(video)
            inside = path.resolve().is_relative_to(self.index.root.resolve())
            if inside and path.is_file() and path.stat().st_size == self.index.videos[video].size:
                return path
        except (KeyError, ValueError, OSError):
            pass
        raise gone()


def _readable(work: Callable[[], T]) -> Callable[[], T]:
    """The same work, with a Refusal for a stretch behind the video's end (422) or one not readable now (410)."""
    from svilm.data.container import DecodeError

    def checked() -> T:
        try:
            return work()
        except DecodeError as error:
            if error.reason == "outside_clip":
                raise Refusal(422, error.message, "give a start and an end within the video") from None
            log.info("not readable: %s", error)
            raise gone() from None

    return checked


def _cleaned(words: str, what: str = "query") -> str:
    words = " ".join(words.replace("\0", " ").split())
    if not words:
        remedy = {"query": "say what happens in the moment that you look for", "noun": "give a noun of the query"}[what]
        raise Refusal(422, f"the {what} is empty", remedy)
    return words


def _filter(folder: str, shortest: float, longest: float | None) -> Filter:
    try:
        return Filter(folder, shortest, float("inf") if longest is None else longest)
    except ValueError as error:
        raise Refusal(422, str(error), "change the filter") from None


async def _body(request: Request) -> bytes:
    """The body of a request, at most LARGEST_PICTURE bytes within UPLOAD_SECONDS."""
    too_large = Refusal(
        413,
        "the picture is too large",
        f"give one of at most {LARGEST_PICTURE >> 20} MB",
        headers={"Connection": "close"},
    )

    async def read() -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > LARGEST_PICTURE:
                raise too_large
        return b"".join(parts)

    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_PICTURE:
        raise too_large
    if not request.headers.get("content-type", "").startswith("image/"):
        raise Refusal(415, "this is not sent as a picture", "send it with a Content-Type that begins with image/")
    try:
        return await asyncio.wait_for(read(), UPLOAD_SECONDS)
    except asyncio.TimeoutError:
        raise Refusal(408, "the picture came too slowly", "try again", headers={"Connection": "close"}) from None


def _served(file: Path) -> Callable[[], Any]:
    data, kind = file.read_bytes(), KINDS[file.suffix]

    async def serve() -> Response:
        return Response(data, media_type=kind)

    return serve


async def _refused(_: Request, error: Any) -> Response:
    response: JSONResponse = error.response()
    return response


async def _invalid(_: Request, error: Any) -> Response:
    problem = error.errors()[0]
    name = [str(part) for part in problem["loc"] if isinstance(part, str)][-1]  # a number tells which of a list
    given = problem.get("input")
    told = f" {given!r}" if isinstance(given, str) and len(given) <= LONGEST_TOLD else ""
    return JSONResponse({"error": f"{name}{told}: {problem['msg']}", "remedy": f"change {name} in the address"}, 422)


async def _unknown(_: Request, error: Any) -> Response:
    if error.status_code == 405:
        return JSONResponse({"error": "not done this way", "remedy": "GET, or POST for a picture"}, 405, error.headers)
    return JSONResponse({"error": "nothing here", "remedy": "open /"}, error.status_code)


async def _failed(_: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    remedy = "see what svilm app has printed; if it stays, it is a fault of svilm"
    return JSONResponse({"error": "the server could not do this", "remedy": remedy}, 500)
