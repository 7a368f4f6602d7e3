"""The page in a real browser: Debian's or Google's Chromium without a window, an index with a tiny untrained model."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import get, serving

from svilm.app.server import create_app
from svilm.data.sample import Sampling
from svilm.model import SViLM
from svilm.search.build import build_index
from svilm.search.index import Index
from svilm.search.moments import Splitting
from tiny_models import SIZE, own_model

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # pipes that playwright leaves to the garbage collector
]
QUERY = "a red circle and a blue square"


@pytest.fixture(scope="module")
def address(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is served."""
    folder = tmp_path_factory.mktemp("index")
    model = own_model()
    sampling = Sampling(num_frames=8, size=SIZE, short_side=SIZE * 5 // 4)  # it sees 4/5 of each side of the picture
    config = model.config.model_copy(update={"sampling": sampling})
    SViLM(model.encoder, model.tokenizer, config).save_pretrained(folder / "model")
    splitting = Splitting(seconds=1.5, shortest=1.0)
    build_index(drawn, folder / "index", str(folder / "model"), splitting=splitting, workers=0, device="cpu")
    with Index(folder / "index", device="cpu") as index, serving(create_app(index)) as port:
        while get(port, "/api/index").json["modelState"] == "loading":
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A new page, which must not complain, fail or ask anybody else."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **getattr(request, "param", {}))
    context.set_default_timeout(30_000)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith((address, "data:", "blob:")) or wrong.append(asked.url))
    page.wrong = wrong
    yield page
    context.close()
    assert not wrong


def found(page: Any, address: str, query: str = QUERY) -> None:
    """Search by typing."""
    page.goto(address)
    page.locator("#q").fill(query)
    page.keyboard.press("Enter")
    page.wait_for_selector(".card:not(.skeleton) .timeline .here")


def wait_for_cards(page: Any, count: int) -> None:
    page.wait_for_function("count => document.querySelectorAll('.card:not(.skeleton)').length === count", arg=count)


def test_start_helps_to_begin(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("#starts img")
    assert "5 videos" in page.inner_text("#lead")
    assert "red circle" in page.locator("#ideas button").all_inner_texts()
    page.click("#failed summary")
    assert "notes.mp4" in page.inner_text("#failed li")
    page.click("text=red circle")
    page.wait_for_selector(".card:not(.skeleton)")
    assert page.input_value("#q") == "red circle"


def test_results_play_their_moment(page: Any, address: str) -> None:
    found(page, address)
    assert "q=a+red+circle" in page.url
    assert page.locator(".card").count() == 12
    card = page.locator(".card", has=page.locator(".name[title$='long.mp4']")).first
    card.locator(".stage").hover()
    video = card.locator("video")
    page.wait_for_function("video => video.currentTime > 0 && !video.paused", arg=video.element_handle())
    source = video.get_attribute("src")
    start, end = map(float, source.partition("#t=")[2].split(","))
    first = video.evaluate("video => video.currentTime")
    assert start - 0.1 <= first <= end + 0.1
    page.wait_for_function("([video, at]) => video.currentTime !== at", arg=[video.element_handle(), first])
    assert video.evaluate("video => video.muted && video.videoWidth === 64")
    again = "video => { const before = video.seen ?? 0; video.seen = video.currentTime; return video.seen < before }"
    page.wait_for_function(again, arg=video.element_handle())  # it comes to the end of the moment, and begins it again
    assert start - 0.1 <= video.evaluate("video => video.currentTime") <= end + 0.1
    page.mouse.move(2, 2)
    page.wait_for_function("video => !video.isConnected || video.paused", arg=video.element_handle())


def test_time_line_goes_to_a_place(page: Any, address: str) -> None:
    found(page, address)
    card = page.locator(".card", has=page.locator(".name[title$='long.mp4']")).first
    line = card.locator(".timeline")
    box = line.bounding_box()
    line.click(position={"x": box["width"] * 0.9, "y": 10})
    seconds = float(line.get_attribute("aria-valuenow"))
    assert seconds == pytest.approx(9.0, abs=0.3)
    page.wait_for_function("card => card.querySelector('video')?.currentTime > 8.5", arg=card.element_handle())
    # It plays on from there, so on a busy machine the place itself may be past before it is asked for.
    line.evaluate(
        "line => new MutationObserver(() => (line.least = Math.min(line.least ?? 99, line.ariaValueNow)))"
        ".observe(line, { attributes: true })"
    )
    line.press("ArrowLeft")
    page.wait_for_function("([line, seconds]) => line.least < seconds", arg=[line.element_handle(), seconds])


def test_pointing_at_a_noun_shows_where_it_is(page: Any, address: str) -> None:
    found(page, address)
    noun = page.locator(".sentence .noun", has_text="blue square")
    noun.hover()
    page.wait_for_selector(".card .heated .heat")
    heat = page.locator(".card .heated .heat").first
    look = heat.evaluate("heat => [heat.style.backgroundImage.slice(0, 27), getComputedStyle(heat).pointerEvents]")
    assert look == ['url("data:image/webp;base64', "none"]
    picture = page.locator(".card .heated").first.bounding_box()
    box = heat.bounding_box()
    assert box["width"] == pytest.approx(picture["width"] * 0.8, abs=1)
    assert box["x"] - picture["x"] == pytest.approx(picture["width"] * 0.1, abs=1)
    moved = "heat => { const at = heat.style.backgroundPosition; return (heat.first ??= at) !== at }"
    page.wait_for_function(moved, arg=heat.element_handle())  # it moves with the video
    page.mouse.move(2, 2)
    page.wait_for_selector(".heated", state="detached")
    noun.click()  # stays while it is pressed
    page.mouse.move(2, 2)
    page.wait_for_selector(".card .heated .heat")
    assert noun.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    page.wait_for_selector(".heated", state="detached")


def test_everything_by_keyboard(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("#starts img")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".card:not(.skeleton)")
    number = "[...document.querySelectorAll('#results .stage')].indexOf(document.activeElement)"
    page.keyboard.press("/")
    for key, place in [
        ("ArrowDown", 0),
        ("ArrowRight", 1),
        ("End", 11),
        ("Home", 0),
        ("ArrowDown", 4),
        ("ArrowLeft", 3),
    ]:
        page.keyboard.press(key)
        assert page.evaluate(number) == place, key
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert "open=4" in page.url
    title = page.inner_text("#theatre-meta")
    page.keyboard.press("ArrowRight")
    assert "open=5" in page.url
    assert page.inner_text("#theatre-meta") != title or page.inner_text("#theatre-title")
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "open" not in url)
    assert page.evaluate(number) == 4
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "q"


def test_filters_and_the_address_that_shares_them(page: Any, address: str) -> None:
    found(page, address)
    page.select_option("#folder", "shapes")
    wait_for_cards(page, 4)
    names = page.locator(".card .name").evaluate_all("all => all.map(name => name.title)")
    assert all(name.startswith("shapes/") for name in names)
    shared = page.url
    page.select_option("#length", "60|")
    page.wait_for_selector("text=No moments in these filters")
    page.reload()
    page.wait_for_selector("#facts:not(:empty)")
    page.click("text=Search everything")
    wait_for_cards(page, 12)
    page.goto(shared)
    wait_for_cards(page, 4)
    assert page.input_value("#folder") == "shapes"
    assert page.input_value("#q") == QUERY
    page.select_option("#folder", "")
    wait_for_cards(page, 12)
    page.go_back()
    wait_for_cards(page, 4)


def test_a_video_that_no_browser_plays_is_shown_in_stills(page: Any, address: str) -> None:
    found(page, address)
    page.click("#more")
    page.wait_for_function("() => document.querySelectorAll('.card:not(.skeleton)').length > 12")
    card = page.locator(".card", has=page.locator(".name[title='old.avi']")).first
    card.scroll_into_view_if_needed()
    card.locator(".stage").hover()
    page.wait_for_selector(".card .film")
    film = card.locator(".film")
    moved = "film => { const at = film.style.backgroundPosition; return (film.first ??= at) !== at }"
    page.wait_for_function(moved, arg=film.element_handle())
    assert card.locator("video").count() == 0


def test_more_like_a_moment_and_like_a_picture(page: Any, address: str, tmp_path: Path) -> None:
    from PIL import Image

    found(page, address)
    page.locator(".card .stage").first.click()
    page.wait_for_selector("dialog[open]")
    page.click("#theatre-like")
    page.wait_for_selector("text=Moments like")
    assert "like=" in page.url
    page.wait_for_selector(".card:not(.skeleton)")
    drawn = ".card .timeline .bars[d^=M]"
    page.wait_for_selector(drawn, state="attached")
    page.reload()
    page.wait_for_selector(".card:not(.skeleton)")
    Image.new("RGB", (80, 60), "red").save(tmp_path / "red.png")
    page.set_input_files("#file", tmp_path / "red.png")
    page.wait_for_selector("text=Moments like this picture")
    page.wait_for_selector(drawn, state="attached")
    page.click("#example-off")
    page.wait_for_selector("#starts img")


def test_back_and_forward_go_by_way_of_a_picture(page: Any, address: str, tmp_path: Path) -> None:
    from PIL import Image

    found(page, address)
    Image.new("RGB", (80, 60), "red").save(tmp_path / "red.png")
    page.set_input_files("#file", tmp_path / "red.png")
    page.wait_for_selector("text=Moments like this picture")
    page.select_option("#folder", "shapes")
    wait_for_cards(page, 4)
    page.go_back()
    wait_for_cards(page, 12)
    assert "Moments like this picture" in page.inner_text("#sentence")
    page.go_back()
    page.wait_for_selector(".sentence .noun")
    assert page.input_value("#q") == QUERY
    assert page.locator("#example").is_hidden()
    page.go_back()
    page.wait_for_selector("#starts img")
    page.go_forward()
    page.wait_for_selector(".sentence .noun")
    page.go_forward()
    page.wait_for_selector("text=Moments like this picture")
    assert page.get_attribute("#example-picture", "src").startswith("blob:")


def test_a_noun_is_shown_though_moments_come_on_screen_meanwhile(page: Any, address: str) -> None:
    found(page, address)
    held: list[Any] = []
    page.route("**/api/heat**", lambda route: route.continue_() if len(held) == 4 else held.append(route))
    page.locator(".sentence .noun", has_text="blue square").click()
    page.wait_for_function("() => document.querySelectorAll('.card .waiting').length > 1")
    while len(held) < 2:
        page.wait_for_timeout(20)
    page.evaluate("scrollBy(0, 400)")  # at once, so that it is noticed once
    for _ in range(100):
        if len(held) < 4:
            page.wait_for_timeout(50)
    assert len(held) == 4
    for route in held:
        route.continue_()
    page.wait_for_selector(".card .heated .heat")
    page.wait_for_function("() => !document.querySelector('.card .waiting')")


def test_the_page_learns_that_the_index_was_read_again(page: Any, address: str) -> None:
    found(page, address)
    asked: list[str] = []
    page.on("request", lambda request: "/api/index" in request.url and asked.append(request.url))

    def another(route: Any) -> None:
        answer = route.fetch()
        told = answer.json() | {"version": "another"}
        route.fulfill(response=answer, json=told | ({"videos": 1234} if "videos" in told else {}))

    page.route("**/api/search**", another)
    page.route("**/api/index", another)
    for query in ("a yellow star", "a red circle", "a green square"):
        page.locator("#q").fill(query)
        page.keyboard.press("Enter")
        page.wait_for_function("query => document.querySelector('#sentence').innerText === query", arg=query)
    page.wait_for_function("() => document.querySelector('#facts').innerText.includes('1,234 videos')")
    assert len(asked) == 1
    assert page.locator("#folder option").count() == 3
    page.evaluate("dispatchEvent(new Event('focus'))")
    page.wait_for_timeout(100)
    assert len(asked) == 2


@pytest.mark.parametrize("page", [{"reduced_motion": "reduce"}], indirect=True)
def test_nothing_moves_for_those_who_asked_for_it(page: Any, address: str) -> None:
    found(page, address)
    page.locator(".card .stage").first.hover()
    page.locator(".sentence .noun").first.hover()
    page.wait_for_selector(".card .heated .heat")
    assert page.locator("video").count() == 0


def test_a_server_that_is_gone_is_said_so(page: Any, address: str) -> None:
    found(page, address)
    page.route("**/api/**", lambda route: route.fulfill(status=500, json={"error": "it broke", "remedy": "mend it"}))
    page.locator("#q").fill("a yellow star")
    page.keyboard.press("Enter")
    page.wait_for_selector("#trouble >> text=It broke.")
    assert page.inner_text("#trouble-remedy") == "Mend it."
    assert all("500" in said for said in page.wrong)
    page.wrong.clear()
    page.unroute("**/api/**")
    page.click("#again")
    page.wait_for_selector(".card:not(.skeleton)")
