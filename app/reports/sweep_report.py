"""The report of a sweep: what each point reached, how sure that is, what it cost, and how to get it again."""

from collections.abc import Iterator, Sequence
from typing import Any

from app.analysis import pareto
from app.analysis.summary import PointSummary, name_of
from app.db import rfc3339
from app.reports.document import (
    Block,
    Column,
    Document,
    Facts,
    Folded,
    Notice,
    Paragraph,
    Picture,
    Section,
    Table,
)
from app.reports.measures import Measure
from app.reports.plot import Plot
from app.reports.provenance import asked, curl, spec_line
from app.reports.sweep_facts import SweepFacts
from app.reports.sweep_plots import sweep_plots
from app.reports.wording import NOTHING, duration, listed, number, percent, plural, scaled, shown, significant
from app.spec.job import JobSpec

_MOST_OPEN = 40
"""Rows of a table that is not folded away."""


def sweep_document(facts: SweepFacts) -> Document:
    sweep, plots = facts.sweep, sweep_plots(facts)
    sections = [
        Section("Overview", "overview", list(_overview(facts, plots))),
        Section("Points", "points", list(_points(facts, plots))),
        Section("Accuracy and size", "pareto", list(_pareto(facts, plots))),
        Section("Pruning", "pruning", list(_pictures(facts, plots, "pruning"))),
        Section("Without an answer", "apart", list(_apart(facts))),
        Section("Cost", "cost", list(_cost(facts))),
        Section("How to repeat it", "repeat", list(_repeat(facts))),
    ]
    return Document(
        kind="sweep",
        ident=sweep.id,
        title=shown(sweep.name or sweep.id, 200),
        state=facts.state,
        summary=shown(facts.summary.verdict, 600),
        sections=[section for section in sections if section.blocks],
    )


def _pictures(facts: SweepFacts, plots: dict[str, Plot], name: str) -> Iterator[Block]:
    if name in plots:
        yield Picture(plots[name], f"/v1/sweeps/{facts.sweep.id}/plots/{name}")


# ---- overview


def _overview(facts: SweepFacts, plots: dict[str, Plot]) -> Iterator[Block]:
    for warning in facts.ground.warnings:
        yield Notice("warning", shown(warning, 600))
    yield Facts(list(_facts(facts)))
    yield from _pictures(facts, plots, "metric")
    if facts.summary.trends:
        yield _trends(facts)


def _facts(facts: SweepFacts) -> Iterator[tuple[str, str]]:
    sweep = facts.sweep
    if sweep.preset:
        yield "preset", sweep.preset
    if sweep.labels:
        yield (
            "labels",
            ", ".join(f"{shown(key)}={shown(value)}" for key, value in sorted(sweep.labels.items())),
        )
    yield "jobs", ", ".join(f"{count:,} {state}" for state, count in facts.counts.items() if count) or "none"
    axes = facts.summary.axes
    if axes:
        values = {axis: len({str(point.params[axis]) for point in facts.summary.points}) for axis in axes}
        yield (
            "axes",
            ", ".join(f"{shown(axis, 40)} ({plural(count, 'value')})" for axis, count in values.items()),
        )
    yield "seeds of each point", str(sweep.spec.get("seeds", 1))
    yield "measured", Measure(facts.metric).title
    baseline = next((p for p in facts.summary.points if p.point == facts.summary.baseline), None)
    if baseline is not None:
        yield "compared with", shown(baseline.name, 100)
    yield "created", rfc3339(sweep.created_at)
    if sweep.finished_at is not None:
        yield (
            "finished",
            f"{rfc3339(sweep.finished_at)}, {duration(sweep.finished_at - sweep.created_at)} later",
        )


def _trends(facts: SweepFacts) -> Table:
    columns = [
        Column("along", is_number=False),
        Column("within", is_number=False),
        Column("jobs"),
        Column("Spearman's rho"),
        Column("p"),
        Column("remark", is_number=False),
    ]
    rows = [
        [
            shown(trend.axis, 40),
            shown(name_of(trend.within), 60) if trend.within else "all jobs",
            number(trend.n),
            number(trend.rho, 3),
            _p(trend.p),
            trend.note or "",
        ]
        for trend in facts.summary.trends
    ]
    title = f"Whether {Measure(facts.metric).title} rises or falls along an axis"
    return Table(title, columns, rows, note="p is two-sided, of each trend alone.")


def _p(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# ---- points


_WITH = ("size_bytes", "parameters", "macs", "latency_ms", "compression_ratio", "train_macs")


def _points(facts: SweepFacts, plots: dict[str, Plot]) -> Iterator[Block]:
    points = [point for point in facts.summary.points if point.metrics]
    if not points:
        return
    table = _point_table(facts, points)
    yield table if len(table.rows) <= _MOST_OPEN else Folded(f"All {len(points):,} points", [table])
    if facts.teachers:
        yield _teacher_table(facts)
    yield from _pictures(facts, plots, "differences")
    if single := _single_seed_table(points):
        yield single


def _point_table(facts: SweepFacts, points: Sequence[PointSummary]) -> Table:
    metric, measure = facts.metric, Measure(facts.metric)
    others = [name for name in _WITH if name != metric and any(name in point.metrics for point in points)]
    columns = [
        Column("point", is_number=False),
        Column("seeds"),
        Column(f"{measure.title}, mean", measure.unit),
        Column("95 % interval", measure.unit),
        Column("min", measure.unit),
        Column("max", measure.unit),
        Column("difference to the baseline", measure.difference_unit),
        Column("95 % interval", measure.difference_unit),
        Column("p, Holm"),
        *(Column(Measure(name).title, Measure(name).unit) for name in others),
    ]
    rows = [_point_row(facts, point, measure, others) for point in points]
    winner = facts.summary.winner
    emphasised = next(
        (k for k, p in enumerate(points) if winner is not None and p.point == winner.point), None
    )
    return Table(
        "Each point, over its seeds", columns, rows, note=_point_note(points, metric), emphasised=emphasised
    )


def _point_row(facts: SweepFacts, point: PointSummary, measure: Measure, others: Sequence[str]) -> list[str]:
    spread, difference = point.metrics.get(measure.name), point.differences.get(measure.name)
    is_baseline = point.point == facts.summary.baseline
    cells = [shown(point.name, 80), number(len(point.seeds))]
    if spread is None:
        cells += [NOTHING] * 4
    else:
        written = [measure.written(value) for value in (spread.mean, spread.min, spread.max)]
        cells += [written[0], _interval(measure.written, spread.low, spread.high), *written[1:]]
    if is_baseline:
        cells += ["baseline", NOTHING, NOTHING]
    elif difference is None:
        cells += [NOTHING] * 3
    else:
        cells += [
            measure.difference(difference.mean),
            _interval(measure.difference, difference.low, difference.high),
            _p(difference.p_holm),
        ]
    return [*cells, *(_mean(point, name) for name in others)]


def _teacher_table(facts: SweepFacts) -> Table:
    measures = [
        Measure(name)
        for name in ("test_accuracy", "val_accuracy", "size_bytes", "parameters", "macs", "latency_ms")
    ]
    columns = [
        Column("teacher", is_number=False),
        Column("jobs"),
        *(Column(measure.title, measure.unit) for measure in measures),
    ]
    rows = [
        [
            listed([shown(name, 60) for name in teacher.names]),
            number(teacher.num_jobs),
            *(measure.written(teacher.row[measure.name]) for measure in measures),
        ]
        for teacher in facts.teachers
    ]
    return Table("Teachers, as they were uploaded", columns, rows)


def _interval(write: Any, low: float | None, high: float | None) -> str:
    return NOTHING if low is None or high is None else f"{write(low)} to {write(high)}"


def _mean(point: PointSummary, name: str) -> str:
    spread = point.metrics.get(name)
    if spread is None:
        return NOTHING
    return scaled(spread.mean) if name == "train_macs" else Measure(name).written(spread.mean)


def _point_note(points: Sequence[PointSummary], metric: str) -> str:
    if all(len(point.seeds) < 2 for point in points):
        return "One seed each: there is no interval, and no difference can be told from chance."
    return (
        "Means over seeds; intervals of the mean by Student's t, over seeds: they say what other seeds would give, "
        "not what other photos would. Differences are paired over common seeds; p by the paired t test, "
        "corrected by Holm over all points."
    )


def _single_seed_table(points: Sequence[PointSummary]) -> Table | None:
    """Where a point has one seed, the images are the only sample: the answer against its own teacher."""
    rows = [
        [
            shown(point.name, 80),
            split,
            number(found.num_images),
            percent(-found.difference, 2),
            f"{percent(-found.high, 2)} to {percent(-found.low, 2)}",
            _p(found.p),
        ]
        for point in points
        for split, found in point.against_teacher.items()
        if split != "train"
    ]
    if not rows:
        return None
    columns = [
        Column("point", is_number=False),
        Column("split", is_number=False),
        Column("images"),
        Column("less or more than the teacher", "points"),
        Column("95 % interval", "points"),
        Column("p, McNemar"),
    ]
    note = "Over the images, with the one seed that there is: another training may differ by more."
    return Table("Against the teacher, on the same images", columns, rows, note=note)


# ---- the rest


def _pareto(facts: SweepFacts, plots: dict[str, Plot]) -> Iterator[Block]:
    if "pareto" not in plots:
        return
    yield from _pictures(facts, plots, "pareto")
    x, y = "size_bytes", facts.accuracy
    rows = pareto.front(pareto.point_rows(facts.answers, facts.summary.axes), x, y)
    columns = [
        Column("point", is_number=False),
        Column("size", "bytes"),
        Column(Measure(y).title, "%"),
        Column("parameters"),
        Column("MACs"),
        Column("latency", "ms"),
    ]
    yield Table(
        "The front: no other point is both smaller and more accurate",
        columns,
        [
            [
                shown(row["name"], 80),
                number(row[x]),
                percent(row[y], 2),
                number(row["parameters"]),
                number(row["macs"]),
                significant(row["latency_ms"]),
            ]
            for row in rows
        ],
    )


def _apart(facts: SweepFacts) -> Iterator[Block]:
    """Never left out in silence: what cannot be, what failed, and what has not ended."""
    titles = {
        "infeasible": "Infeasible: it cannot be, however often it is tried",
        "failed": "Failed",
        "cancelled": "Cancelled",
    }
    groups: dict[str, list[Any]] = {}
    for each in facts.summary.apart:
        groups.setdefault(titles.get(each.state, "Not ended yet"), []).append(each)
    columns = [
        Column("point", is_number=False),
        Column("seed"),
        Column("job", is_number=False),
        Column("code", is_number=False),
        Column("reason", is_number=False),
    ]
    for title, found in groups.items():
        rows = [
            [
                shown(each.name, 80),
                str(each.seed),
                each.job_id,
                each.code or each.state,
                shown(each.reason or "", 400),
            ]
            for each in found
        ]
        table = Table(title, columns, rows)
        yield table if len(rows) <= _MOST_OPEN else Folded(f"{title}: {plural(len(rows), 'job')}", [table])


def _cost(facts: SweepFacts) -> Iterator[Block]:
    shared = facts.sweep.shared or {}
    pairs = []
    if facts.sum_of("train_macs") is not None:
        pairs.append(("training named by the answers", f"{scaled(facts.sum_of('train_macs'))} multiply-adds"))
    if facts.sum_of("epochs") is not None:
        pairs.append(("epochs named by the answers", number(facts.sum_of("epochs"), 1)))
    if facts.sum_of("seconds") is not None:
        pairs.append(("steps named by the answers took", duration(facts.sum_of("seconds"))))
    if shared.get("stage_jobs"):
        pairs += [
            ("trained once for several", plural(shared["stage_jobs"], "shared stage")),
            ("jobs that begin from one", number(shared.get("children_served"))),
            ("steps saved", number(shared.get("steps_saved"))),
        ]
    if not pairs:
        return
    yield Facts(pairs)
    if shared.get("stage_jobs"):
        yield Paragraph(
            "What several jobs have in common was trained once; the sums above count it for each of them."
        )


def _repeat(facts: SweepFacts) -> Iterator[Block]:
    spec = dict(facts.sweep.spec)
    # A point may set what the job leaves out, so the job alone is not always whole.
    spec["job"] = asked(spec["job"], JobSpec)
    if steps := spec_line(spec["job"]):
        yield Facts([("job", steps)])
    left = {name: value for name, value in spec.items() if value not in (None, {}, [])}
    yield curl("/v1/sweeps", left)
    table = f"/v1/sweeps/{facts.sweep.id}/table?rows=answers&format=csv"
    yield Paragraph("All rows behind this page:")
    yield Facts([("table", f"GET {table}"), ("summary", f"GET /v1/sweeps/{facts.sweep.id}/summary")])
    digests = facts.ground.digests
    pairs = [(f"{split} images", "; ".join(found)) for split, found in digests.splits.items()]
    pairs += [("fewbytes", ", ".join(digests.version))] if digests.version else []
    if pairs:
        yield Folded("Digests of what was measured on", [Facts(pairs)])
