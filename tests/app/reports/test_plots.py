"""Plots: well-formed, the same every time, fit for a strict page, and true to their numbers."""

import csv
import io
import re
import threading
from typing import Any
from xml.etree import ElementTree

import pytest

from app.reports import drawing
from app.reports.job_facts import JobFacts, Point
from app.reports.job_report import job_plots
from app.reports.palette import DARK, GRID, INK, MUTED, SERIES, SURFACE
from app.reports.plot import Plot, as_csv
from app.tables import Job
from tests.app.reports import examples

SVG = "{http://www.w3.org/2000/svg}"


def facts_of(result: dict[str, Any], metrics: list[dict[str, Any]] = (), **spec: Any) -> JobFacts:  # type: ignore[assignment]
    steps = [{"method": "distill"}, {"method": "quantize"}]
    job = Job(
        id="job_1",
        kind="compress",
        state="succeeded",
        spec={"steps": steps, "seed": 5, **spec},
        result=result,
    )
    points = [Point(m["seed"], m["step"], m["epoch"], m["name"], m["value"]) for m in metrics]
    return JobFacts(job=job, snapshot=None, attempts=[], stages=result["stages"], points=points)  # type: ignore[arg-type]


def everything() -> dict[str, Plot]:
    result = examples.result(sensitivity=examples.sensitivity())
    result["stages"][2]["details"] = examples.pruning()
    return job_plots(facts_of(result, examples.curves(1, 5) + examples.curves(2, 3)))


@pytest.fixture(scope="module")
def drawn() -> dict[str, ElementTree.Element]:
    return {name: ElementTree.fromstring(drawing.inline_svg(plot)) for name, plot in everything().items()}


def test_there_is_a_plot_for_everything_that_was_measured() -> None:
    assert set(everything()) == {
        *("learning_curves", "accuracy_size", "prune_iterations", "confusion", "confusion_difference"),
        *("recall", "layers", "sensitivity"),
    }


def test_every_plot_has_a_title_and_says_its_numbers(drawn: dict[str, ElementTree.Element]) -> None:
    """Read out in place of the picture; the title is drawn too, and the axes have labels."""
    for name, root in drawn.items():
        title, text = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
        assert title is not None
        assert text is not None
        assert re.search(r"\d", text.text or ""), name
        assert root.get("aria-labelledby") == f"{title.get('id')} {text.get('id')}"
        assert title.text in [element.text for element in root.iter(f"{SVG}text")]


def test_nothing_in_a_plot_needs_a_looser_policy(drawn: dict[str, ElementTree.Element]) -> None:
    """No style attributes, no scripts, nothing from elsewhere; ids that two plots of a page cannot share."""
    for name, root in drawn.items():
        for element in root.iter():
            assert "style" not in element.attrib
            assert element.tag not in (f"{SVG}style", f"{SVG}script", f"{SVG}foreignObject")
            assert element.get("id", name).startswith(name)
            for key, value in element.attrib.items():
                if key.endswith("href"):
                    assert value.startswith((f"#{name}-", "data:image/png;base64,"))


def test_every_reference_in_a_plot_has_its_target(drawn: dict[str, ElementTree.Element]) -> None:
    for root in drawn.values():
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(ids) == len(set(ids))
        wanted = {
            found
            for element in root.iter()
            for value in element.attrib.values()
            for found in re.findall(r"^(?:url\()?#([^)]+)\)?$", value)
            if not re.fullmatch(r"[0-9a-f]{6}", found)
        }
        assert wanted <= set(ids)


def test_every_colour_has_one_for_dark_pages(drawn: dict[str, ElementTree.Element]) -> None:
    """Heat maps apart, which bring their own ground."""
    for name, root in drawn.items():
        used = {element.get(kind, "none") for element in root.iter() for kind in ("fill", "stroke")}
        known = {*DARK, "none"} | ({"#10151b", "#fdfdfe"} if name.startswith("confusion") else set())
        assert used <= known, (name, used - known)


def luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_seen_on_both_grounds() -> None:
    """WCAG 2.1: 4.5 for text, 3 for lines and marks; the grid is decoration."""
    assert set(DARK) == {INK, MUTED, GRID, SURFACE, *(series.colour for series in SERIES)}
    for colour in set(DARK) - {GRID, SURFACE}:
        wanted = 4.5 if colour in (INK, MUTED) else 3.0
        assert contrast(colour, SURFACE) >= wanted, colour
        assert contrast(DARK[colour], DARK[SURFACE]) >= wanted, colour


def test_no_series_is_told_by_its_colour_alone() -> None:
    assert len({series.marker for series in SERIES}) == len({series.dash for series in SERIES}) == len(SERIES)


def test_the_same_numbers_give_the_same_bytes() -> None:
    once, again = everything(), everything()
    for name in ("learning_curves", "confusion"):
        assert drawing.svg_file(once[name]) == drawing.svg_file(again[name])
    assert drawing.png_file(once["recall"]) == drawing.png_file(again["recall"])


def test_threads_may_draw_at_once() -> None:
    plots, found, errors = everything(), {}, []

    def draw(name: str) -> None:
        try:
            found[name] = drawing.inline_svg(plots[name])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=draw, args=(name,)) for name in plots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert found == {name: drawing.inline_svg(plot) for name, plot in plots.items()}


def test_curves_are_drawn_where_their_numbers_are(drawn: dict[str, ElementTree.Element]) -> None:
    """Each epoch's mark lies on one line through the numbers: the drawing is the data, stretched."""
    plot = everything()["accuracy_size"]
    shares = [row[2] for row in plot.rows]
    heights = [
        float(element.get("y", "0"))
        for element in drawn["accuracy_size"].iter(f"{SVG}use")
        if element.get("fill") == SERIES[0].colour
    ]
    assert len(heights) == len(shares) == 3
    (a, b, c), (x, y, z) = shares, heights
    assert (b - a) * (z - x) == pytest.approx((c - a) * (y - x), rel=0.02)
    assert (c - a) * (z - x) < 0, "more is higher, and higher is a smaller y"


def test_epochs_count_over_all_steps() -> None:
    """Five epochs of the first step, then three of the second; the CSV keeps each step's own, and the seed itself."""
    plot = everything()["learning_curves"]
    assert "8 epochs of 2 training steps" in plot.alt
    rows = list(csv.DictReader(io.StringIO(as_csv(plot))))
    assert [int(row["epoch"]) for row in rows if row["name"] == "accuracy"] == [1, 2, 3, 4, 5, 1, 2, 3]
    assert {row["seed"] for row in rows} == {"5"}
    wanted = [m["value"] for m in examples.curves(1, 5) if m["name"] == "train_loss"]
    assert [
        float(r["value"]) for r in rows if r["name"] == "train_loss" and r["step"] == "1"
    ] == pytest.approx(wanted)


def test_several_seeds_have_their_mean() -> None:
    """The last of two seeds' curves end at 0.5 and 0.7: 60 %."""
    metrics = [
        {"seed": seed, "step": 1, "epoch": epoch, "name": "accuracy", "value": value}
        for seed, values in ((1, (0.2, 0.5)), (2, (0.4, 0.7)))
        for epoch, value in enumerate(values, 1)
    ]
    plot = job_plots(facts_of(examples.result(), metrics, seeds=2))["learning_curves"]
    assert "mean of 2 seeds: 30.0 % after epoch 1, 60.0 % after epoch 2" in plot.alt
    assert {row[0] for row in plot.rows} == {5, 6}


def test_the_difference_of_confusions_is_the_answers_less_the_teachers() -> None:
    result = examples.result()
    plot = job_plots(facts_of(result))["confusion_difference"]
    teacher, answer = (result["stages"][k]["confusion"]["test"]["counts"] for k in (0, 2))
    names = examples.CLASSES
    found = {(row[0], row[1]): row[2] for row in plot.rows}
    for i, true in enumerate(names):
        for j, answered in enumerate(names):
            assert found.get((true, answered), 0) == answer[i][j] - teacher[i][j]


def test_a_spreadsheet_runs_nothing() -> None:
    plot = Plot("p", "t", "a", ["name", "value"], [["=1+1", -2], ["@x", 0.5]], lambda figure: None)
    assert as_csv(plot) == "name,value\n'=1+1,-2\n'@x,0.5\n"


@pytest.mark.parametrize("name", ["$x_{$", "</svg><script>alert(1)</script>", "\u202egnp\x07", "x" * 10_000])
def test_hostile_names_are_only_text(name: str) -> None:
    """Neither mathematics nor markup, and no wider than their place."""
    result = examples.result()
    result["stages"][0]["class_names"] = [name, "b", "c"]
    result["stages"][2]["layers"][0]["name"] = name
    for plot in job_plots(facts_of(result)).values():
        root = ElementTree.fromstring(drawing.svg_file(plot))
        assert all(element.tag != f"{SVG}script" for element in root.iter())
        texts = [element.text or "" for element in root.iter(f"{SVG}text")]
        assert max(map(len, texts)) < 80
        assert "\u202e" not in "".join(texts)


def test_a_hundred_classes_and_three_hundred_epochs_stay_small() -> None:
    """A heat map without names, thinned curves: what a page can hold."""
    result = examples.result(num_classes=100, per_class=10, num_layers=500)
    plots = job_plots(facts_of(result, examples.curves(1, 300)))
    for name, plot in plots.items():
        drawn = drawing.inline_svg(plot)
        assert len(drawn) < 150_000, name
        assert len(ElementTree.fromstring(drawn).findall(f".//{SVG}text")) < 130, name
