"""The report: complete in itself, true to the files and the model, and calm where something is missing."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.small import CONFIG, model

from svilm.config import ConfigError
from svilm.data.augment import CutPaste
from svilm.data.language import Tokenizer
from svilm.data.loader import Data
from svilm.data.manifest import Entry, Header, Manifest, write_manifest
from svilm.data.sample import Sampling
from svilm.data.world.truth import ClipTruth, ThingTruth
from svilm.data.world.write import write_video
from svilm.model import SViLM
from svilm.report import curves, nouns, numbers, scenes, search, write_report
from svilm.report.common import Absent, Files, attempt, fixed, read_files
from svilm.run import Run, evaluate
from svilm.tasks.grounding import Grounding
from svilm.tasks.pretrain import Pretrain
from svilm.tasks.retrieval import Retrieval
from svilm.tasks.temporal import Temporal

EVIL = "a <script>alert(\"no\")</script> & a 'red' circle"
CAPTIONS = (EVIL, "a blue star spins", "a green ring falls", "two squares rest", "a white heart hops", "it grows")
VOID = {"meta", "img", "br", "input", "link", "hr", "image", "path", "use"}


@dataclass
class Page(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, its text, what it asks for."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    wrong: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self._open or self._open.pop() != tag):
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """Attributes of every tag of this name."""
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    return page


def make_data(folder: Path) -> Path:
    """Six clips, each of one colour that changes half-way in every second one, with a truth file beside."""
    (folder / "videos").mkdir(parents=True)
    entries, records = [], []
    for number, caption in enumerate(CAPTIONS):
        name = f"clip{number}"
        pixels = np.full((8, 32, 32, 3), 60 + 20 * number, dtype=np.uint8)
        pixels[4:] += np.uint8(90 if number % 2 else 0)
        write_video(folder / "videos" / f"{name}.mp4", pixels, fps=8)
        changes = (0.5,) if number % 2 else ()
        entries.append(Entry(name, f"{name}.mp4", (caption,), (("red circle",),), scene_changes=changes))
        box = (0.25, 0.25, 0.75, 0.75)
        thing = ThingTruth(
            phrases=("red circle",),
            colour="red",
            shape="circle",
            size="",
            motion="spins",
            shot=0,
            boxes=(box,) * 8,
        )
        records.append(
            ClipTruth(
                id=name,
                video=f"videos/{name}.mp4",
                split="test",
                fps=8,
                num_frames=8,
                scene_changes=changes,
                backgrounds=("striped",),
                action="spins",
                captions=(caption,),
                nouns=(("red circle",),),
                things=(thing,),
                questions=(),
            )
        )
    (folder / "truth.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    path = folder / "clips.jsonl"
    write_manifest(path, Header("folder", "videos", len(entries), "six <clips>"), entries)
    return path


def make_run(folder: Path, manifest: Path, seed: int = 0, task: Pretrain | None = None) -> Run:
    """A run folder as training leaves it, around a model that never was trained."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer.train(Manifest(manifest)[0].captions, 50)
    tokenizer.save(folder)
    text = CONFIG.text.model_copy(update={"vocabulary": len(tokenizer), "positions": 32})
    shape = CONFIG.model_copy(update={"text": text})
    run = Run(
        recipe="tiny",
        seed=seed,
        device="cpu",
        model=shape,
        data=Data(
            manifest=str(manifest), batch=4, workers=0, sampling=Sampling(num_frames=8, size=16), paste=CutPaste()
        ),
        task=task or Pretrain(),
        retrieval=Retrieval(manifest=str(manifest), dual_softmax=0.1),
        temporal=Temporal(manifest=str(manifest), jump_cuts=str(manifest)),
        grounding=Grounding(manifest=str(manifest)),
    )
    (folder / "run.json").write_text(run.model_dump_json())
    encoder = model(seed + 1, shape)
    SViLM(encoder, tokenizer, run.model_config_of()).save_pretrained(folder / "model")
    evaluate(run, folder)
    environment = {"command": "svilm train tiny", "cpus": 2, "gpus": [], "torch": torch.__version__}
    (folder / "environment.json").write_text(json.dumps(environment))
    logged = {
        "loss/total": 6.0, "loss/contrast": 3.0, "loss/grounding": 2.9, "loss/grouping": 0.1,
        "temperature/contrast": 0.07, "groups/live_per_clip": 3.0, "groups/live_in_batch": 4.0, "groups/entropy": 0.9,
        "speed/clips_per_second": 50.0, "speed/waiting_for_data": 0.1, "data/skipped": 2.0, "optim/lr": 0.1,
    }  # fmt: skip
    lines = [{"step": step, "seconds": step * 2.0, **logged} for step in (10, 20, 30)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Image.new("RGB", (60, 40), "white").save(folder / "first_batch.png")
    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a run and a baseline run, shared by the tests that only read."""
    folder = tmp_path_factory.mktemp("place")
    manifest = make_data(folder / "data")
    make_run(folder / "run", manifest)
    make_run(folder / "baseline", manifest, seed=5, task=Pretrain(grounding=0.0))
    return folder


@pytest.fixture(scope="module")
def page(place: Path) -> Iterator[Page]:
    """The full report, with a baseline."""
    path = write_report(place / "run", baseline=place / "baseline", queries=3)
    assert path == place / "run" / "report.html"
    assert path.stat().st_size < 1_000_000
    yield read_page(path)


def files_of(place: Path, **changes: object) -> Files:
    return replace(read_files(place / "run"), **changes)  # type: ignore[arg-type]


class TestPage:
    def test_every_part_is_there(self, page: Page) -> None:
        assert [tag for tag, attributes in page.tags if attributes.get("class") == "absent"] == []
        assert len(page.all("section")) == 9
        for words in ("Text to video", "R@10", "Temporal grouping loss", "Clips per second", "svilm train tiny"):
            assert words in page.text

    def test_it_asks_for_nothing(self, page: Page) -> None:
        asked = [
            attributes[name]
            for _, attributes in page.tags
            for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
            if name in attributes
        ]
        assert len(asked) > 20
        assert [value for value in asked if not value.startswith(("data:", "#"))] == []
        assert not page.all("script") and not page.all("link") and not page.all("iframe")
        assert "url(http" not in "".join(attributes.get("style", "") for _, attributes in page.tags)

    def test_it_is_well_formed_and_its_links_lead_somewhere(self, page: Page) -> None:
        assert page.wrong == []
        ids = [attributes["id"] for tag, attributes in page.tags if "id" in attributes and tag != "g"]
        targets = {link["href"][1:] for link in page.all("a")}
        assert targets and targets <= set(ids)
        assert len(page.all("h1")) == 1

    def test_pictures_have_words(self, page: Page) -> None:
        assert all(image.get("alt") for image in page.all("img"))
        assert all(svg.get("aria-label") and svg["role"] == "img" for svg in page.all("svg"))

    def test_words_of_the_data_stay_words(self, page: Page, place: Path) -> None:
        assert EVIL in page.text and "six <clips>" in page.text
        assert "<script" not in (place / "run" / "report.html").read_text()

    def test_tables_hold_the_scores(self, page: Page, place: Path) -> None:
        scores = json.loads((place / "run" / "scores.json").read_text())
        tables = numbers.retrieval_tables(files_of(place), None).tables
        for key, (_, rows) in zip(("text_to_video", "video_to_text"), tables, strict=True):
            own = rows[0]
            assert own.own and own.cells[2] == f"{scores[f'retrieval/{key}/R@10']:.1f}"
            titles = [row.title for row in rows]
            assert titles[1:] == [
                "This run, dual softmax (transductive)", "The same model, untrained", "Chance",
            ]  # fmt: skip
            assert rows[-1].cells[3] == "3.5"  # median rank of guessing among six

    def test_the_baseline_stands_beside(self, page: Page) -> None:
        assert page.text.count("Baseline baseline") >= 3
        assert "1 setting in which the baseline differs" not in page.text  # the seed differs too
        assert "task.grounding" in page.text and "2 settings in which the baseline differs" in page.text


class TestMissing:
    def test_a_bare_run_gets_a_report(self, tmp_path: Path, place: Path) -> None:
        run = read_files(place / "run").run
        bare = Run(recipe="tiny", model=run.model)
        (tmp_path / "run.json").write_text(bare.model_dump_json())
        page = read_page(write_report(tmp_path))
        absent = [tag for tag, attributes in page.tags if attributes.get("class") == "absent"]
        assert len(absent) == 10  # headline, eight sections, environment
        assert "Traceback" not in page.text and page.wrong == []

    def test_moved_videos_and_a_lost_baseline_take_only_their_parts(self, tmp_path: Path, place: Path) -> None:
        shutil.copytree(place, tmp_path / "there")
        here = tmp_path / "there"
        (here / "baseline" / "model" / "model.safetensors").write_bytes(b"damaged")
        text = (here / "run" / "run.json").read_text().replace(str(place), str(here))
        (here / "run" / "run.json").write_text(text)
        shutil.rmtree(here / "data" / "videos")
        (here / "run" / "metrics.jsonl").unlink()
        page = read_page(write_report(here / "run", baseline=here / "baseline"))
        absent = [attributes for _, attributes in page.tags if attributes.get("class") == "absent"]
        assert len(absent) == 6  # queries, scenes, nouns; losses, groups, speed
        assert "clip0.mp4" in page.text and "not_found" in page.text
        assert "Chance" in page.text

    def test_a_folder_that_is_no_run_is_refused(self, tmp_path: Path, place: Path) -> None:
        with pytest.raises(ConfigError, match=r"no run\.json"):
            write_report(tmp_path)
        with pytest.raises(ConfigError, match=r"no run\.json"):
            write_report(place / "run", baseline=tmp_path)

    def test_damaged_scores_are_named(self, tmp_path: Path, place: Path) -> None:
        shutil.copy(place / "run" / "run.json", tmp_path)
        for text in ("{", "[1]"):
            (tmp_path / "scores.json").write_text(text)
            with pytest.raises(ValueError, match=r"scores\.json.*svilm evaluate"):
                write_report(tmp_path)

    def test_only_the_last_line_of_a_long_message_is_shown(self) -> None:
        def fail() -> None:
            raise RuntimeError("Traceback:\n  somewhere\nValueError: the reason\n")

        assert attempt(fail) == Absent("ValueError: the reason")


class TestSearch:
    def test_results_are_the_nearest_and_the_right_one_is_marked(self, place: Path) -> None:
        run, trained = read_files(place / "run").run, SViLM.from_pretrained(place / "run", "cpu")
        found = search.queries(run, trained, 6)
        assert (found.total, found.videos, len(found.shown)) == (6, 6, 6)
        manifest = Manifest(run.retrieval.manifest)
        clips = trained.encode_video([place / "data" / "videos" / entry.video for entry in manifest])
        for number, query in enumerate(found.shown):
            cosine = (clips @ trained.encode_text(CAPTIONS[number])[0]).numpy()
            order = np.argsort(-cosine)
            assert [result.id for result in query.results[:5]] == [f"clip{place}" for place in order[:5]]
            assert query.rank == pytest.approx(1 + (cosine > cosine[number]).sum())
            right = [result for result in query.results if result.right]
            assert [result.id for result in right] == [f"clip{number}"]
            assert right[0].place == query.rank
            assert len(query.results) == (5 if query.rank <= 5 else 6)
        assert found.first == sum(query.rank == 1 for query in found.shown)

    def test_films_show_all_frames_at_their_own_speed(self, place: Path) -> None:
        run, trained = read_files(place / "run").run, SViLM.from_pretrained(place / "run", "cpu")
        film = search.queries(run, trained, 1).shown[0].results[0].film
        assert film.frames == 8 and film.seconds == pytest.approx(1.0)


class TestScenes:
    def test_means_are_those_of_the_evaluation(self, place: Path) -> None:
        files = read_files(place / "run")
        trained = SViLM.from_pretrained(place / "run", "cpu")
        found = scenes.scenes(scenes.Viewer("This run", files.run, trained), None)
        assert found.clips == 3 and len(found.rows) == 3
        assert found.names == ("This run", "The same model, untrained")
        for mean, family in zip(found.means, ("temporal", "temporal_untrained"), strict=True):
            assert mean.within == pytest.approx(files.scores[f"{family}/within"], abs=1e-6)
            assert mean.across == pytest.approx(files.scores[f"{family}/across"], abs=1e-6)
            assert mean.told_apart == pytest.approx(files.scores[f"{family}/told_apart"])

    def test_jump_cuts_have_a_table(self, page: Page, place: Path) -> None:
        files = read_files(place / "run")
        rows = numbers.beside_table(files, None, "temporal_cuts", tuple(scenes.JUMP_CUTS), scenes.BLIND)
        assert [row.title for row in rows] == ["This run", *scenes.BLIND.values()]
        assert rows[1].cells[0] == f"{files.scores['temporal_cuts_untrained/told_apart']:.1f}"
        assert "the place stays, the things change" in page.text
        assert "Jump cuts" in [each.get("aria-label") for each in page.all("div")]

    def test_without_scene_changes_it_says_so(self, place: Path) -> None:
        files = read_files(place / "run")
        run = files.run.model_copy(update={"temporal": Temporal()})
        viewer = scenes.Viewer("This run", run, SViLM.from_pretrained(place / "run", "cpu"))
        with pytest.raises(ConfigError, match="--scenes"):
            scenes.scenes(viewer, None)


class TestNouns:
    def test_heat_is_measured_in_true_boxes(self, place: Path) -> None:
        run, trained = read_files(place / "run").run, SViLM.from_pretrained(place / "run", "cpu")
        found = nouns.heats(run, trained)
        assert found.clips == 6 and found.nouns == 6 and len(found.rows) == nouns.CLIPS
        assert found.share is not None
        # the box covers the middle half of 32 pixels, of which 7/8 are seen
        assert found.share.area == pytest.approx((0.5 * 8 / 7) ** 2, abs=0.08)

    def test_scores_stand_beside_maps_that_know_no_words(self, page: Page, place: Path) -> None:
        files, other = read_files(place / "run"), read_files(place / "baseline")
        rows = numbers.beside_table(files, other, "grounding", tuple(nouns.COLUMNS), nouns.BLIND)
        assert [row.title for row in rows] == ["This run", "Baseline baseline", *nouns.BLIND.values()]
        assert rows[0].own and rows[0].cells[0] == f"{files.scores['grounding/pointing']:.1f}"
        for words in ("Most salient place", "Where scenes change", "hottest pixel on it"):
            assert words in page.text
        assert numbers.beside_table(files, other, "nothing", ("a",), nouns.BLIND) == ()

    def test_without_truth_there_are_no_shares(self, tmp_path: Path, place: Path) -> None:
        shutil.copytree(place / "data" / "videos", tmp_path / "only" / "videos")
        shutil.copy(place / "data" / "clips.jsonl", tmp_path / "only")
        files = read_files(place / "run")
        manifest = Retrieval(manifest=str(tmp_path / "only" / "clips.jsonl"))
        run = files.run.model_copy(update={"retrieval": manifest})
        found = nouns.heats(run, SViLM.from_pretrained(place / "run", "cpu"))
        assert found.share is None and found.clips == nouns.CLIPS
        assert all(heat.share is None for row in found.rows for heat in row.nouns)


class TestNumbers:
    def test_the_sentence_says_what_was_done(self, place: Path) -> None:
        text = numbers.sentence(files_of(place))
        assert text == (
            "A video-text dual encoder trained from random weights on 6 clips (folder) for 30 steps of 4 clips with "
            "the contrastive, spatial grounding and temporal grouping losses, in 1.0 min on 2 CPU cores."
        )

    def test_drawn_videos_are_never_taken_for_the_benchmark(self, place: Path) -> None:
        world = place / "data" / "world.json"
        world.write_text("{}")
        try:
            files = files_of(place)
            assert "on 6 drawn clips (in the form of folder) for" in numbers.sentence(files)
            assert "compare nothing here with" in numbers.retrieval_tables(files, None).warning
        finally:
            world.unlink()

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("folder", "the list"),
            ("webdataset", "the list"),
            ("msrvtt+folder", "the list"),
            ("msrvtt", "the official list"),
        ],
    )
    def test_only_a_benchmark_has_an_official_list(self, place: Path, source: str, words: str) -> None:
        manifest = place / "data" / "clips.jsonl"
        before = manifest.read_text()
        manifest.write_text(before.replace('"folder"', f'"{source}"', 1))
        try:
            assert numbers.retrieval_tables(files_of(place), None).of == words
        finally:
            manifest.write_text(before)

    def test_the_time_of_a_resumed_run_adds_up(self) -> None:
        log = [{"step": n, "seconds": s} for n, s in enumerate((5.0, 10.0, 3.0, 7.0))]
        assert numbers.duration(log) == 17.0
        assert numbers.duration([]) == 0.0

    def test_numbers_have_a_real_minus_sign_and_no_negative_zero(self) -> None:
        assert [fixed(x, 2) for x in (-0.25, -0.001, 1.0)] == ["\N{MINUS SIGN}0.25", "0.00", "1.00"]

    def test_another_protocol_is_told(self, place: Path) -> None:
        run, baseline = read_files(place / "run"), read_files(place / "baseline")
        assert numbers.retrieval_tables(run, baseline).warning == ""
        other = replace(baseline, protocols={"retrieval": {"protocol": "other clips"}})
        assert "other clips" in numbers.retrieval_tables(run, other).warning
        assert "no retrieval scores" in numbers.retrieval_tables(run, replace(baseline, scores={})).warning

    def test_gpus_are_counted_unless_the_run_was_on_the_cpu(self, place: Path) -> None:
        machine = {"gpus": ["A", "A", "B"], "cpus": 8}
        auto = files_of(place, environment=machine)
        auto = replace(auto, run=auto.run.model_copy(update={"device": "auto"}))
        assert numbers.hardware(auto) == "2 x A, 1 x B"
        assert numbers.hardware(files_of(place, environment=machine)) == "8 CPU cores"

    def test_similarities_below_zero_have_a_minus_sign_and_no_bar(self, place: Path) -> None:
        tiles = numbers.headline(files_of(place, scores={"temporal/across": -0.25}), None)
        assert [(tile.value, tile.share) for tile in tiles] == [("\N{MINUS SIGN}0.25", 0.0)]


class TestCurves:
    def test_only_logged_values_get_a_chart(self, place: Path) -> None:
        log = [{"step": 1, "seconds": 1.0, "loss/total": 2.0, "loss/answer": 1.0, "retrieval/text_to_video/R@10": 5.0}]
        titles = [panel.title for panel in curves.losses(files_of(place, log=log))]
        assert titles == ["Total", "loss/answer", "R@10 while training"]
        with pytest.raises(ValueError, match="group usage"):
            curves.groups(files_of(place, log=log))

    def test_skipped_clips_are_the_last_count(self, place: Path) -> None:
        assert curves.skipped(files_of(place)) == 2
        assert curves.skipped(files_of(place, log=[])) == 0
