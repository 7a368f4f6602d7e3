"""`svilm score`: judge a file of predictions, whoever made it, by the official rules of its benchmark."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

app = typer.Typer(
    no_args_is_help=True,
    help="Judge a file of predictions, ours or not, by the official rules of the benchmark.",
    epilog="Each prints a table and the protocol behind it; --json writes all of it to a file.",
)


def _file(text: str, metavar: str) -> Any:
    return typer.Argument(help=escape(text), metavar=metavar, show_default=False)


Json = Annotated[Path | None, typer.Option("--json", help="File to write the scores to.", metavar="OUT")]


@app.command()
def activitynet(
    truth: Annotated[Path, _file('Ground truth: {"database": {id: {subset, annotations}}}.', "GT.json")],
    predictions: Annotated[Path, _file('{"results": {id: [{segment, label, score}]}}.', "PRED.json")],
    subset: Annotated[str, typer.Option(help="Part of the ground truth to score.")] = "validation",
    blocked: Annotated[
        Path | None,
        typer.Option(help="Ids of videos to leave out: a JSON list or one per line.", metavar="FILE"),
    ] = None,
    unknown_labels: Annotated[
        Literal["refuse", "ignore"], typer.Option(help="Predictions of classes without ground truth.")
    ] = "refuse",
    degenerate: Annotated[
        Literal["refuse", "official"],
        typer.Option(help="Segments that do not end after they start; official: an overlap of 0/0 is a match."),
    ] = "refuse",
    out: Json = None,
) -> None:
    """Temporal action detection: mAP at temporal IoU 0.5 to 0.95, as ActivityNet's own script has it."""
    from svilm.metrics.activitynet import evaluate_segments, read_predictions, read_truth
    from svilm.metrics.files import read_names

    with _judging(truth, predictions):
        scores = evaluate_segments(
            read_truth(truth, subset),
            read_predictions(predictions),
            blocked=() if blocked is None else read_names(blocked),
            unknown_labels=unknown_labels,
            degenerate=degenerate,
        )
    columns = [f"{threshold:.2f}" for threshold in scores.thresholds]
    rows = [
        (label, str(count), *_percents([*ap, ap.mean()]))
        for label, count, ap in zip(scores.labels, scores.num_truths, scores.ap, strict=True)
    ]
    last = ("mAP", str(scores.num_truths.sum()), *_percents([*scores.mean_ap, scores.average_map]))
    _print_table([("AP %, tIoU", "segments", *columns, "average"), *rows, last])
    _finish(
        out,
        f"{subset} subset: {scores.protocol}",
        (scores.num_videos, scores.num_official),
        {
            "ap": {label: ap.tolist() for label, ap in zip(scores.labels, scores.ap, strict=True)},
            "mAP": scores.mean_ap.tolist(),
            "average_mAP": scores.average_map,
            "tiou": scores.thresholds.tolist(),
            "num_gt": int(scores.num_truths.sum()),
            "num_pred": scores.num_predictions,
        },
    )


@app.command()
def ava(
    truth: Annotated[Path, _file("Ground truth: video, second, x1, y1, x2, y2, action id, person id.", "GT.csv")],
    detections: Annotated[Path, _file("video, second, x1, y1, x2, y2, action id, score.", "DET.csv")],
    exclude: Annotated[
        Path | None,
        typer.Option(help="Keyframes to leave out (video, second); the official script has none.", metavar="FILE"),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="List of the classes; default: the 60 of AVA v2.2.", metavar="PBTXT")
    ] = None,
    cap: Annotated[int, typer.Option(min=0, help="Detections of a keyframe that count; 0: all.")] = 50,
    out: Json = None,
) -> None:
    """Spatiotemporal action detection: frame mAP at IoU 0.5, as AVA's own script has it."""
    from svilm.metrics.ava import CLASSES, evaluate_boxes, read_classes, read_detections, read_excluded, read_truth

    names = dict.fromkeys(CLASSES, "") if classes is None else read_classes(classes)
    with _judging(truth, detections):
        scores = evaluate_boxes(
            read_truth(truth),
            read_detections(detections),
            classes=names,
            cap=cap,
            excluded=() if exclude is None else read_excluded(exclude),
        )
    rows = [
        (f"{identity} {names[identity]}".strip(), str(scores.num_truths[identity]), *_percents([ap]))
        for identity, ap in scores.ap.items()
        if ap is not None
    ]
    last = ("mAP", str(sum(scores.num_truths.values())), *_percents([scores.mean_ap]))
    _print_table([("class", "boxes", "AP %"), *rows, last])
    ap = {str(identity): value for identity, value in scores.ap.items()}
    counts = scores.num_keyframes, scores.num_official
    _finish(out, scores.protocol, counts, {"ap": ap, "mAP": scores.mean_ap})


@app.command()
def retrieval(
    similarity: Annotated[
        Path,
        _file("similarity [queries, items]; positives [queries], or [queries, most] filled up with -1.", "SIM.npz"),
    ],
    out: Json = None,
) -> None:
    """Retrieval: recall and ranks in both directions; without positives item i is right for query i."""
    from svilm.metrics.retrieval import chance, inverted, rank_similarity
    from svilm.metrics.submissions import read_similarity

    values, positives = read_similarity(similarity)
    num_queries, num_items = values.shape
    with _judging(similarity):
        ranking = rank_similarity(values, positives)  # refuses positives that are none, before they are turned round
    right = positives or [[query] for query in range(num_queries)]
    queries_of = inverted(right, num_items)
    asked = [item for item, queries in enumerate(queries_of) if queries]
    back = [queries_of[item] for item in asked]
    table = {
        "query_to_item": ranking.metrics(),
        "query_to_item/chance": chance(num_queries, num_items, positives).metrics(),
        "item_to_query": rank_similarity(values.T[asked], back).metrics(),
        "item_to_query/chance": chance(len(asked), num_queries, back).metrics(),
    }
    names = list(table["query_to_item"])
    _print_table([("", *names), *((row, *(f"{m[name]:.2f}" for name in names)) for row, m in table.items())])
    flat = {f"{row}/{name}": value for row, found in table.items() for name, value in found.items()}
    protocol = (
        f"recall in percent over {num_queries} queries and {num_items} items, {sum(map(len, right))} right pairs; "
        f"rank of the best right item, expected value over the orders of equal similarities; items to queries over "
        f"the {len(asked)} items that answer one"
    )
    _finish(out, protocol, (num_queries, num_queries), {"metrics": flat})


@app.command()
def vqa(
    truth: Annotated[Path, _file("Questions with answers: JSON list or JSON Lines.", "TRUTH")],
    predictions: Annotated[
        Path, _file('{question id: answer}, or a list of {"question_id", "answer"}.', "PREDICTIONS")
    ],
    vocabulary: Annotated[
        Path | None,
        typer.Option(help="Answers that a model picks from, to bound its accuracy: JSON or lines.", metavar="FILE"),
    ] = None,
    out: Json = None,
) -> None:
    """Video question answering: exact match, over all questions of the file and by type of question."""
    from svilm.metrics.classification import score_answers
    from svilm.metrics.files import read_names
    from svilm.metrics.submissions import read_answers, read_questions

    words = None if vocabulary is None else read_names(vocabulary)
    with _judging(truth, predictions):
        scores = score_answers(read_questions(truth), read_answers(predictions), words)
    counts = {"accuracy": scores.num_questions, "coverage": scores.num_questions}
    counts |= {f"accuracy/{kind}": count for kind, count in scores.num_by_kind.items()}
    rows = [(name, str(counts[name]), f"{value:.2f}") for name, value in scores.metrics().items()]
    rows += [(name, str(scores.num_questions), f"{value:.2f}") for name, value in scores.baselines().items()]
    _print_table([("", "questions", "percent"), *rows])
    scored = scores.num_questions - scores.num_missing
    record = {"metrics": scores.metrics(), "baselines": scores.baselines()}
    _finish(out, scores.protocol, (scored, scores.num_questions), record)


@app.command()
def classification(
    truth: Annotated[Path, _file('Class of each clip: csv "id,label", JSON, or lines "id label".', "TRUTH")],
    scores: Annotated[
        Path, _file("npz of ids, scores [clips, classes], classes; or csv with the header id,CLASS,...", "SCORES")
    ],
    out: Json = None,
) -> None:
    """Action recognition: top-1, top-5 and mean per-class accuracy; a clip without scores is wrong."""
    from svilm.metrics.classification import score_classes
    from svilm.metrics.submissions import aligned, read_class_scores, read_labels

    handed_in, labels = read_class_scores(scores), read_labels(truth)
    with _judging(truth, scores):
        found = score_classes(*aligned(labels, handed_in))
    values = {**found.metrics(), **found.baselines()}
    _print_table([("", "percent"), *((name, f"{value:.2f}") for name, value in values.items())])
    elsewhere = len(set(handed_in.ids) - labels.keys())
    names = handed_in.classes or tuple(str(number) for number in range(len(found.confusion)))
    record = {
        "metrics": found.metrics(),
        "baselines": found.baselines(),
        "classes": list(names),
        "confusion": found.confusion.tolist(),
    }
    protocol = f"{found.protocol}; scores of {elsewhere} other clips left out"
    _finish(out, protocol, (found.num_clips - found.num_missing, found.num_clips), record)


@contextmanager
def _judging(*files: Path) -> Iterator[None]:
    """Put the files in front of what is wrong with their values; what is wrong with their form names its file."""
    from svilm.metrics.files import ScoreFileError

    try:
        yield
    except ScoreFileError:
        raise
    except ValueError as error:
        raise ScoreFileError(f"{' with '.join(map(str, files))}: {error}") from error


def _percents(values: Sequence[float]) -> list[str]:
    return [f"{100 * value:.2f}" for value in values]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns, names to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        print("  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))]))


def _finish(out: Path | None, protocol: str, counts: tuple[int, int], record: Mapping[str, Any]) -> None:
    """Print how the numbers came about, and write them to ``out`` if that is wanted."""
    scored, official = counts
    print(f"\nscored {scored}/{official}; {protocol}")
    if out is not None:
        whole = {**record, "scored": scored, "official": official, "protocol": protocol}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
