"""The report of downstream runs, one by one and together: true to their files, calm where something is missing."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from small import CONFIG, model
from svilm.config import ConfigError
from svilm.data.augment import CutPaste
from svilm.data.language import Tokenizer
from svilm.data.loader import Data
from svilm.data.manifest import Entry, Header, LabelledBox, Manifest, Segment, write_manifest
from svilm.data.sample import Sampling
from svilm.engine.task import Context, Job, TaskSettings
from svilm.metrics.files import ScoreFileError
from svilm.model import SViLM
from svilm.models.ava_heads import BoxHeadConfig
from svilm.models.gtad import GTADConfig
from svilm.models.heads import AnswerHeadConfig
from svilm.report import boxes, classes, pictures, questions, scores, segments, write_report
from svilm.report.common import Absent, Files, read_files, varied
from svilm.run import Run, evaluate
from svilm.start import Start
from svilm.tasks.ava import Ava
from svilm.tasks.localization import Localization
from svilm.tasks.pretrain import Pretrain
from svilm.tasks.recognition import Recognition
from svilm.tasks.retrieval import Retrieval
from svilm.tasks.vqa import Vqa
from test_report import EVIL, Page, make_data, read_page

KINDS = ("what", "what", "what", "how", "how", "who")
ANSWERS = ("red", "blue", "red", "two", "three", EVIL)
TITLES = (
    "Text-video retrieval",
    "Video question answering",
    "Action recognition",
    "Temporal action localization",
    "Spatiotemporal action localization",
)
"""Of the runs, in the order of the page."""
CLASSES = ("MovesLeft", "Spins", "StaysStill")
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.25, 1.0, 0.75)


def make_manifests(folder: Path) -> dict[str, Path]:
    """Six clips of a second as clips with captions, as questions, with classes, with segments and with boxes."""
    clips = make_data(folder)
    entries = list(Manifest(clips))
    shared = {"root": str(folder / "videos"), "official": len(entries)}

    def write(name: str, rows: list[Entry], names: tuple[str, ...] = ()) -> Path:
        path = folder / f"{name}.jsonl"
        write_manifest(path, Header(name, **shared, protocol=f"{name} <test>", classes=names, split="test"), rows)
        return path

    asked, labelled, cut, people = [], [], [], []
    for number, entry in enumerate(entries):
        plain = replace(entry, captions=(f"what is {number}?",), nouns=((),), scene_changes=())
        asked.append(replace(plain, id=f"q{number}", labels=(ANSWERS[number],), category=KINDS[number]))
        labelled.append(replace(plain, labels=(CLASSES[number % 3],)))
        pieces = (Segment(0.0, 0.4, "spins"), Segment(0.5, 1.0, "moves <left>"))
        cut.append(replace(plain, segments=pieces, duration=1.0))
        shown = (
            LabelledBox(LEFT, ("1",)),
            LabelledBox(RIGHT, ("2", "3")),
            LabelledBox((0.05, 0.0, 0.5, 1.0), score=0.95, origin="detector"),
            LabelledBox((0.0, 0.0, 0.1, 0.1), score=0.9, origin="detector"),
        )
        people.append(replace(plain, id=f"clip{number},0901", boxes=shown))
    return {
        "clips": clips,
        "vqa": write("msrvtt-qa", asked),
        "recognition": write("ucf101", labelled, CLASSES),
        "localization": write("activitynet", cut, ("moves <left>", "spins")),
        "ava": write("ava", people, ("1 moves left", "2 spins", "3 talks to (self)")),
    }


def make_run(folder: Path, manifest: Path, task: TaskSettings, **more: object) -> Run:
    """A run folder as training leaves it, around an encoder and heads that never were trained."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer.train([caption for entry in Manifest(manifest) for caption in entry.captions], 50)
    tokenizer.save(folder)
    text = CONFIG.text.model_copy(update={"vocabulary": len(tokenizer), "positions": 32})
    sampling = Sampling(num_frames=8, size=16)
    run = Run(
        recipe="tiny",
        device="cpu",
        model=CONFIG.model_copy(update={"text": text}),
        start=Start(model="runs/before"),
        data=Data(manifest=str(manifest), batch=4, workers=0, sampling=sampling, paste=CutPaste(probability=0.0)),
        task=task,
        **more,  # type: ignore[arg-type]
    )
    (folder / "run.json").write_text(run.model_dump_json())
    SViLM(model(1, run.model), tokenizer, run.model_config_of()).save_pretrained(folder / "model")
    evaluate(run, folder)
    (folder / "environment.json").write_text(json.dumps({"command": "svilm train", "cpus": 2, "gpus": []}))
    logged = {"loss/total": 3.0, "loss/answers": 3.0, "speed/clips_per_second": 50.0, "groups/entropy": 0.9}
    lines = [{"step": step, "seconds": step * 2.0, **logged} for step in (10, 20)]
    Image.new("RGB", (60, 40), "white").save(folder / "first_batch.png")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


TASKS = {
    "vqa": lambda test: Vqa(test=test, answers=0, head=AnswerHeadConfig(hidden=16)),
    "recognition": lambda test: Recognition(test=test),
    "localization": lambda test: Localization(
        test=test, network=GTADConfig(channels=16, steps=8, longest=8, width=32, wide=16, narrow=8, bins=4)
    ),
    "ava": lambda test: Ava(test=test, head=BoxHeadConfig(size=3, heads=2, dropout=0.0)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a finished run of each task, shared by the tests that only read."""
    folder = tmp_path_factory.mktemp("downstream")
    manifests = make_manifests(folder / "data")
    for kind, task in TASKS.items():
        make_run(folder / "runs" / f"a-{kind}", manifests[kind], task(str(manifests[kind])))
    retrieval = Retrieval(manifest=str(manifests["clips"]))
    contrast = Pretrain(grounding=0.0, grouping=0.0)
    make_run(folder / "runs" / "z-retrieval", manifests["clips"], contrast, retrieval=retrieval)
    return folder


@pytest.fixture
def runs(place: Path, tmp_path: Path) -> Path:
    """The runs, free to be changed; their manifests stay where they are."""
    return Path(shutil.copytree(place / "runs", tmp_path / "runs"))


@pytest.fixture(scope="module")
def page(place: Path) -> Iterator[Page]:
    """All of them on one page."""
    path = write_report(place / "runs", queries=2)
    assert path == place / "runs" / "report.html"
    yield read_page(path)


def absent(page: Page) -> int:
    return sum(attributes.get("class") == "absent" for _, attributes in page.tags)


class TestTogether:
    def test_every_run_has_a_tile_and_a_section_in_the_order_of_the_paper(self, page: Page) -> None:
        tiles = [attributes["href"] for tag, attributes in page.tags if attributes.get("class") == "tile"]
        sections = [section["id"] for section in page.all("section") if section.get("class") == "one"]
        assert tiles == [f"#{name}" for name in sections] == [f"#{number}-run" for number in range(1, 6)]
        names = ["z-retrieval", "a-vqa", "a-recognition", "a-localization", "a-ava"]
        places = [page.text.index(f"{name}\n", page.text.index("Stop the moving")) for name in names]
        assert places == sorted(places)
        header = page.text[: page.text.index("Stop the moving")]
        assert all(header.count(f"{name}{title}") == 1 for name, title in zip(names, TITLES, strict=True))
        assert absent(page) == 0

    def test_each_task_has_its_picture(self, page: Page) -> None:
        labels = [svg["aria-label"] for svg in page.all("svg")]
        for beginning, count in (("Confusion matrix", 1), ("Timeline of clip", 4), ("Keyframe clip", 6)):
            assert sum(label.startswith(beginning) for label in labels) == count
        alts = [image["alt"] for image in page.all("img")]
        assert sum(alt.startswith("Frames of the clip of question") for alt in alts) == 6
        assert sum(alt.startswith("Video clip") for alt in alts) >= 10  # retrieved

    def test_it_is_well_formed_and_complete_in_itself(self, page: Page, place: Path) -> None:
        assert page.wrong == []
        ids = [attributes["id"] for tag, attributes in page.tags if "id" in attributes and tag == "section"]
        assert len(ids) == len(set(ids))
        assert {link["href"][1:] for link in page.all("a")} <= set(ids)
        asked = [
            attributes[name] for _, attributes in page.tags for name in ("src", "href", "xlink:href")
            if name in attributes
        ]  # fmt: skip
        assert [value for value in asked if not value.startswith(("data:", "#"))] == []
        assert "<script" not in (place / "runs" / "report.html").read_text()
        assert EVIL in page.text and "msrvtt-qa <test>" in page.text

    def test_pictures_have_words(self, page: Page) -> None:
        assert all(image.get("alt") for image in page.all("img"))
        assert all(svg.get("aria-label") and svg["role"] == "img" for svg in page.all("svg"))

    def test_scores_stand_beside_their_baselines_and_protocols(self, page: Page, place: Path) -> None:
        own = json.loads((place / "runs" / "a-vqa" / "scores.json").read_text())
        assert f"without the video {own['vqa_blind/accuracy']:.1f}" in page.text
        for words in ("The same head, the video blanked out", "Random segments", "Always the most frequent class"):
            assert words in page.text
        assert page.text.count("6 of 6 items of the official list scored") == 5
        assert page.text.count("6 of 6 videos of the list scored") == 1  # its clips are a folder's

    def test_a_damaged_run_is_named_and_an_unfinished_one_says_so(self, runs: Path) -> None:
        (runs / "a-ava" / "run.json").write_text("{")
        (runs / "a-recognition" / "scores.json").write_text("[]")
        for name in ("scores.json", "protocols.json", "predictions.json"):
            (runs / "a-vqa" / name).unlink()
        shutil.rmtree(runs / "a-localization")
        page = read_page(write_report(runs, queries=1))
        assert "must hold one JSON object" in page.text and "a-ava/run.json" in page.text
        assert "a-vqaVideo question answeringNo scores yet" in page.text
        assert "No scores: the run is unfinished" in page.text
        assert "Traceback" not in page.text and page.wrong == []

    def test_a_baseline_stands_beside_one_run_only(self, place: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="holds 5"):
            write_report(place / "runs", baseline=place / "runs" / "a-vqa")
        with pytest.raises(ConfigError, match=r"no run\.json"):
            write_report(tmp_path)


class TestAlone:
    @pytest.mark.parametrize(
        ("name", "parts", "title"),
        [
            ("a-vqa", 6, "S-ViLM video question answering report"),
            ("a-recognition", 6, "S-ViLM action recognition report"),
            ("a-localization", 6, "S-ViLM temporal action localization report"),
            ("a-ava", 6, "S-ViLM spatiotemporal action localization report"),
            ("z-retrieval", 7, "S-ViLM text-video retrieval report"),
        ],
    )
    def test_a_page_of_its_own(self, runs: Path, name: str, parts: int, title: str) -> None:
        page = read_page(write_report(runs / name))
        assert title in page.text and "trained from runs/before on 6 " in page.text
        assert len(page.all("section")) == parts
        assert absent(page) == 0
        assert page.wrong == [] and len(page.all("h1")) == 1

    def test_moved_videos_take_only_the_pictures(self, runs: Path, place: Path, tmp_path: Path) -> None:
        data = Path(shutil.copytree(place / "data", tmp_path / "data"))
        for manifest in data.glob("*.jsonl"):
            manifest.write_text(manifest.read_text().replace(str(place), str(tmp_path)))
        shutil.rmtree(data / "videos")
        for path in runs.glob("a-*/run.json"):
            path.write_text(path.read_text().replace(str(place / "data"), str(data)))
        texts = {path.parent.name: read_page(write_report(path.parent)).text for path in runs.glob("a-*/run.json")}
        assert all("not_found" in text or "no such" in text.lower() for text in texts.values())
        assert "By type of question" in texts["a-vqa"] and "Most often confused" in texts["a-recognition"]

    @pytest.mark.parametrize(
        ("kind", "name", "reason"),
        [
            ("vqa", "predictions.json", "predictions.json"),
            ("recognition", "predictions.npz", "predictions.npz"),
            ("localization", "predictions.json", "predictions.json"),
            ("ava", "ava_detected.csv", "line 1 must be video"),
        ],
    )
    def test_damaged_predictions_give_a_line(self, runs: Path, kind: str, name: str, reason: str) -> None:
        (runs / f"a-{kind}" / name).write_text("nonsense\n")
        page = read_page(write_report(runs / f"a-{kind}"))
        assert reason in page.text and absent(page) == 1
        assert "items of the official list" in page.text

    def test_a_baseline_run_is_a_row_and_another_protocol_is_told(self, runs: Path) -> None:
        other = runs / "a-other"
        shutil.copytree(runs / "a-vqa", other)
        protocols = json.loads((other / "protocols.json").read_text())
        protocols["vqa"]["protocol"] = "in another way"
        (other / "protocols.json").write_text(json.dumps(protocols))
        text = read_page(write_report(runs / "a-vqa", baseline=other)).text
        assert "Baseline a-other" in text and "scored differently: in another way" in text


def files_of(runs: Path, kind: str) -> Files:
    return read_files(runs / f"a-{kind}")


class TestScores:
    def test_baselines_go_to_the_family_with_the_longest_name(self, runs: Path) -> None:
        own = {
            "recognition/top-1": 50.0, "recognition_zero_shot/top-1": 40.0, "recognition_chance/top-1": 10.0,
            "recognition_zero_shot_chance/top-1": 11.0, "recognition_new_idea/top-1": 12.0, "recognition/rate": 3.0,
        }  # fmt: skip
        protocols = {name: {"scored": 100, "official": 120} for name in ("recognition", "recognition_zero_shot")}
        files = replace(files_of(runs, "recognition"), scores=own, protocols=protocols)
        learned, named = scores.tables(files, None)
        assert [(row.title, row.cells, row.own) for row in learned.rows] == [
            ("This run", ("50.0",), True), ("Guessing", ("10.0",), False), ("New idea", ("12.0",), False),
        ]  # fmt: skip
        assert [row.cells for row in named.rows] == [("40.0",), ("11.0",)]
        assert (learned.columns, learned.scored, learned.official) == (("top-1",), 100, 120)
        assert learned.remarks[0] == "The standard error of the first number is 5.0 points."
        (tile,) = scores.tiles(files, None)
        assert (tile.value, tile.share, tile.mark) == ("50.0", 0.5, 0.4)

    def test_scores_of_a_task_that_is_not_ours_are_shown_as_they_are(self, runs: Path) -> None:
        files = files_of(runs, "vqa")

        class Counting(TaskSettings):
            kind: Literal["counting.task"] = "counting.task"

            def job(self, context: Context) -> Job:
                raise NotImplementedError

        own = {"counting/error": -0.125, "counting/off_by": 3.0, "counting_constant/error": 1.5}
        found = replace(
            files, run=files.run.model_copy(update={"task": Counting()}), scores=own, protocols={"counting": {}}
        )
        (table,) = scores.tables(found, None)
        assert table.columns == ("error", "off_by") and not table.percent
        assert [(row.title, row.cells) for row in table.rows] == [
            ("This run", ("\N{MINUS SIGN}0.125", "3")), ("Constant", ("1.5", "")),
        ]  # fmt: skip
        assert [(tile.title, tile.value) for tile in scores.tiles(found, None)] == [
            ("counting: error", "\N{MINUS SIGN}0.125")
        ]

    def test_no_scores_are_an_absent_part(self, runs: Path) -> None:
        with pytest.raises(ValueError, match="svilm evaluate"):
            scores.tables(replace(files_of(runs, "vqa"), scores={}), None)


class TestQuestions:
    def test_right_and_wrong_answers_by_type(self, runs: Path) -> None:
        answers = {"q0": "red", "q1": "red", "q3": "two", "q4": "two", "q5": EVIL}  # none for q2
        rows = [{"question_id": name, "answer": answer} for name, answer in answers.items()]
        (runs / "a-vqa" / "predictions.json").write_text(json.dumps(rows))
        found = questions.answered(files_of(runs, "vqa"))
        assert [(kind.name, kind.questions, round(kind.right, 1)) for kind in found.kinds] == [
            ("what", 3, 33.3), ("how", 2, 50.0), ("who", 1, 100.0),
        ]  # fmt: skip
        assert [round(kind.habit or 0, 1) for kind in found.kinds] == [66.7, 50.0, 100.0]
        assert (found.total, found.num_right) == (6, 3)
        assert not isinstance(found.shown, Absent)
        assert [(each.id, each.answer, each.right) for each in found.shown] == [
            ("q0", "red", True), ("q3", "two", True), ("q5", EVIL, True),
            ("q1", "red", False), ("q4", "two", False), ("q2", "(none)", False),
        ]  # fmt: skip

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12), st.integers(0, 5))
    def test_chosen_items_differ_as_long_as_they_can(self, items: list[tuple[int, int]], count: int) -> None:
        found = varied(items, lambda item: (item[0],), count)
        assert len(found) == min(count, len(items))
        first = [item[0] for item in found[: len({item[0] for item in items})]]
        assert len(first) == len(set(first))
        assert not items or not found or found[0] == items[0]


class TestClasses:
    def test_confusions_and_clips_are_those_of_the_file(self, runs: Path) -> None:
        path = runs / "a-recognition" / "predictions.npz"
        with np.load(path) as saved:
            arrays = dict(saved)
        chances = np.full((6, 3), 0.1)
        for clip, first in enumerate((0, 2, 2, 0, 2, 2)):  # both spins are taken for still
            chances[clip, first] = 0.8
        arrays["scores"] = chances
        arrays["confusion"] = np.array([[2.0, 0, 0], [0, 0, 2], [0, 0, 2]])
        np.savez(path, **arrays)
        found = classes.classes(files_of(runs, "recognition"))
        assert [(each.truth, each.taken, each.clips, each.total) for each in found.confusions] == [
            ("spins", "stays still", 2.0, 2.0)
        ]
        assert not isinstance(found.shown, Absent)
        assert [(each.id, each.right) for each in found.shown] == [
            ("clip0", True), ("clip2", True), ("clip3", True), ("clip5", True), ("clip1", False), ("clip4", False),
        ]  # fmt: skip
        assert found.shown[-1].guesses[0] == ("stays still", pytest.approx(0.8))
        np.savez(path, **{**arrays, "scores": chances[:, :2]})
        with pytest.raises(ValueError, match="do not fit together"):
            classes.classes(files_of(runs, "recognition"))

    def test_predictions_of_other_clips_are_not_shown_under_their_names(self, runs: Path) -> None:
        path = runs / "a-recognition" / "predictions.npz"
        with np.load(path) as saved:
            arrays = dict(saved)
        np.savez(path, **{**arrays, "ids": np.array([f"other{number}" for number in range(6)])})
        found = classes.classes(files_of(runs, "recognition"))
        assert isinstance(found.shown, Absent) and "evaluate the run again" in found.shown.why

    @pytest.mark.parametrize(("count", "texts"), [(3, True), (20, True), (200, False)])
    def test_the_matrix_names_and_numbers_what_can_be_read(self, count: int, texts: bool) -> None:
        confusion = np.zeros((count, count))
        confusion[0, 1] = 37.0  # the others have no clips
        figure = pictures.confusion_matrix(confusion, [f"name{number}" for number in range(count)])
        (axes,) = figure.axes
        assert (len(axes.get_xticklabels()) == count) is texts
        assert [text.get_text() for text in axes.texts] == (["37"] if count <= 16 else [])
        shares = axes.images[0].get_array()
        assert shares is not None and shares[0, 1] == 1.0 and np.ma.is_masked(shares[1, 0])


class TestSegments:
    def test_predictions_find_the_nearest_open_segment_of_their_class(self) -> None:
        truth = [Segment(0.0, 10.0, "a"), Segment(12.0, 20.0, "a"), Segment(0.0, 10.0, "b")]
        found = [
            (Segment(1.0, 10.0, "a"), 0.9),
            (Segment(0.0, 10.0, "a"), 0.8),  # taken already
            (Segment(12.0, 17.0, "a"), 0.7),
            (Segment(0.0, 4.0, "b"), 0.6),  # too short
        ]
        assert segments.matched(truth, found) == {0: 0, 2: 1}
        assert segments.iou(Segment(0.0, 10.0, "a"), Segment(5.0, 15.0, "b")) == pytest.approx(1 / 3)

    def test_as_many_predictions_as_true_ones_are_shown(self, runs: Path) -> None:
        rows = [{"segment": [0, 0.4], "label": "spins", "score": 0.9}]
        rows += [{"segment": [0.6, 1.0], "label": "spins", "score": 0.1 * number} for number in range(5)]
        whole = {"results": {"clip0": rows, "clip1": rows[1:]}}
        (runs / "a-localization" / "predictions.json").write_text(json.dumps(whole))
        found = segments.timelines(files_of(runs, "localization"))
        assert [(each.id, each.found, each.truths, each.shown, each.of) for each in found.shown[:3]] == [
            ("clip0", 1, 2, 3, 6), ("clip1", 0, 2, 3, 5), ("clip2", 0, 2, 0, 0),
        ]  # fmt: skip
        assert found.shown[0].picture.count("<text") > found.shown[2].picture.count("<text")
        (runs / "a-localization" / "predictions.json").write_text(json.dumps({"results": {"film": rows}}))
        with pytest.raises(ValueError, match="names none of the first videos"):
            segments.timelines(files_of(runs, "localization"))


class TestBoxes:
    def test_each_person_stands_beside_what_was_said(self, runs: Path) -> None:
        folder = runs / "a-ava"

        def write(name: str, rows: list[tuple[object, ...]]) -> None:
            with open(folder / name, "w", newline="") as file:
                csv.writer(file).writerows([("clip0", "901", *row) for row in rows])

        write("ava_truth_boxes.csv", [(*LEFT, 1, 0.2), (*LEFT, 2, 0.7), *((*RIGHT, k, 0.1 * k) for k in (1, 2, 3))])
        write("ava_detected.csv", [(0.05, 0.0, 0.5, 1.0, 1, 0.6), (0.0, 0.0, 0.1, 0.1, 2, 0.5)])
        found = boxes.keyframes(files_of(runs, "ava"))
        assert len(found.shown) == 6 and found.detected and found.in_truth
        first, second = found.shown[0].people
        assert first.actions == ("moves left",) and second.actions == ("spins", "talks to (self)")
        assert first.in_truth == boxes.Named((("spins", 0.7, False),))
        assert first.detected is not None and first.detected.actions == (("moves left", 0.6, True),)
        assert first.detected.overlap == pytest.approx(0.9)
        assert second.in_truth is not None and second.detected is None
        assert [(name, right) for name, _, right in second.in_truth.actions] == [
            ("talks to (self)", True), ("spins", True),
        ]  # fmt: skip
        assert found.shown[0].nobody == (boxes.Named((("spins", 0.5, False),)),)
        assert found.shown[1].people[0].in_truth is None  # the files name only the first keyframe
        (folder / "ava_detected.csv").unlink()
        assert not boxes.keyframes(files_of(runs, "ava")).detected
        (folder / "ava_truth_boxes.csv").unlink()
        with pytest.raises(ValueError, match="svilm evaluate"):
            boxes.keyframes(files_of(runs, "ava"))

    def test_a_box_is_matched_once_and_the_closest_pairs_come_first(self) -> None:
        near, far, away = (0.0, 0.0, 0.5, 0.95), (0.0, 0.0, 0.5, 0.8), (0.8, 0.8, 1.0, 1.0)
        assert boxes.matched([LEFT, (0.0, 0.0, 0.5, 0.7)], [far, near, away]) == {0: near, 1: far}
        assert boxes.matched([LEFT], []) == {}

    def test_the_picture_has_the_boxes_at_their_places(self) -> None:
        markup = pictures.boxes_on_frame("data:,", (640, 320), [RIGHT], [LEFT], 'a "b" <c>')
        assert 'viewBox="0 0 360 180"' in markup and 'aria-label="a &quot;b&quot; &lt;c&gt;"' in markup
        assert markup.count('x="180.0" y="45.0" width="180.0" height="90.0"') == 2  # outlined twice
        assert markup.count("stroke-dasharray") == 1 and ">1</text>" in markup


def test_missing_files_of_a_task_are_named(runs: Path) -> None:
    (runs / "a-vqa" / "predictions.json").unlink()
    with pytest.raises((ScoreFileError, OSError), match=r"predictions\.json"):
        questions.answered(files_of(runs, "vqa"))
