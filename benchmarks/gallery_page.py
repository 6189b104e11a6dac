"""What docs/gallery keeps of a preset's run: its report, its table, one picture, the command, and what it showed."""

import json
from pathlib import Path
from typing import Any

import httpx

from app.analysis.columns import is_share
from examples.client import check

_MOST_POINTS = 9
"""So many are named one by one; of more only the best and the worst."""
PLOTS = {
    "finetune_epochs": "pruning",
    "prune_at_most": "pruning",
    "pruning_rates": "pruning",
    "same_size": "pareto",
    "unit_by_unit": "pruning",
}
"""The picture of a preset, where it is another than the metric along the axes."""
_RUN = "run.json"
_FILES = ("report.html", "report.md", "table.csv", "command.txt")


def is_there(folder: Path) -> bool:
    """Whether a run has left all it leaves: this file is written last."""
    return (folder / _RUN).exists()


def write(
    client: httpx.Client,
    folder: Path,
    preset: dict[str, Any],
    sweep: dict[str, Any],
    run: dict[str, Any],
) -> None:
    """The files of one preset. `run`: what the gallery knows of it, kept for the index."""
    folder.mkdir(parents=True, exist_ok=True)
    here = f"/v1/sweeps/{sweep['id']}"
    rows = "iterations" if preset["curve_within_jobs"] else "answers"
    plots = {plot["name"]: plot for plot in check(client.get(f"{here}/plots", timeout=300)).json()["items"]}
    plot = plots[PLOTS.get(preset["name"], "metric")]
    for name, path, parameters in (
        ("report.html", f"{here}/report", {}),
        ("report.md", f"{here}/report", {"format": "md"}),
        ("table.csv", f"{here}/table", {"rows": rows, "format": "csv"}),
        ("plot.svg", plot["links"]["svg"], {}),
    ):
        (folder / name).write_bytes(check(client.get(path, params=parameters, timeout=300)).content)
    summary = check(client.get(f"{here}/summary")).json()
    table = check(client.get(f"{here}/table", params={"rows": "answers"})).json()
    run = run | {
        "said": said(summary, table["rows"]),
        "counts": {state: count for state, count in sweep["counts"].items() if count},
        "shared": sweep["shared"],
        "alt": plot["alt"],
    }
    (folder / "command.txt").write_text(_command(preset["name"], run))
    (folder / _RUN).write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")


def _command(name: str, run: dict[str, Any]) -> str:
    data = f" --data {run['photos']}" if run["photos"] else ""
    full = " --scale full" if run["scale"] == "full" else ""
    body = json.dumps(run["body"], ensure_ascii=False)
    return f"python -m benchmarks.gallery {name}{data}{full}\n\ncurl $U/v1/sweeps --json '{body}'\n"


def said(summary: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """What this run showed, in sentences: the means, those without an answer, the verdict."""
    metric = summary["metric"]
    sentences = [_means(summary["points"], metric), _teachers(rows, metric), _apart(summary["apart"])]
    return " ".join([*filter(None, sentences), summary["verdict"]])


def _means(points: list[dict[str, Any]], metric: str) -> str:
    known = [point for point in points if metric in point["metrics"]]
    if not known:
        return ""

    def mean(point: dict[str, Any]) -> float:
        value: float = point["metrics"][metric]["mean"]
        return value

    shown = known
    if len(known) > _MOST_POINTS:
        ordered = sorted(known, key=mean)
        shown = [ordered[-1], ordered[0]]
    seeds = max(point["metrics"][metric]["n"] for point in known)
    each = ", ".join(f"{point['name']}: {_shown(mean(point), metric)}" for point in shown)
    of = f" (best and worst of {len(known)} points)" if len(shown) < len(known) else ""
    return f"{metric.replace('_', ' ')}, mean of {seeds} seed{'s' if seeds > 1 else ''}: {each}{of}."


def _shown(value: float, metric: str) -> str:
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:,.4g}"


def _teachers(rows: list[dict[str, Any]], metric: str) -> str:
    found = sorted({row[f"teacher_{metric}"] for row in rows if row.get(f"teacher_{metric}") is not None})
    if not found:
        return ""
    return (
        f"Teacher{'s' if len(found) > 1 else ''}: {' and '.join(_shown(value, metric) for value in found)}."
    )


def _apart(apart: list[dict[str, Any]]) -> str:
    """Who gave no answer, by point and reason."""
    groups: dict[tuple[str, str], set[str]] = {}
    for job in apart:
        groups.setdefault((job["state"], job["code"] or ""), set()).add(job["name"])
    return " ".join(
        f"{state.capitalize()}{f' ({code})' if code else ''}: {', '.join(sorted(names))}."
        for (state, code), names in sorted(groups.items())
    )


def write_index(out: Path, presets: list[dict[str, Any]]) -> None:
    """README.md of the gallery: one picture and what it showed for every preset that was run."""
    runs = {
        preset["name"]: json.loads((out / preset["name"] / _RUN).read_text())
        for preset in presets
        if is_there(out / preset["name"])
    }
    if not runs:
        return
    sections = [_section(preset, runs[preset["name"]]) for preset in presets if preset["name"] in runs]
    (out / "README.md").write_text("\n".join([_head(runs), *sections]), encoding="utf-8")


def _head(runs: dict[str, dict[str, Any]]) -> str:
    first = next(iter(runs.values()))
    splits = ", ".join(f"{name} {count:,}" for name, count in first["splits"].items())
    minutes = round(sum(run["seconds"] for run in runs.values()) / 60)
    machines = "; ".join(dict.fromkeys(run["machine"].split(", load")[0] for run in runs.values()))
    photos = (
        first["photos"] or "solar cells (PyPI: elpv-dataset), mono- or polycrystalline, sound or defective"
    )
    return f"""# Gallery: every preset on real photos

Each of the report's experiments as one POST ([presets.md](../presets.md)), run with `"short": true`: minutes, not
the report's days. So these are the experiments' shapes on few photos and few epochs, not their final figures. The sentences
under the pictures are what these runs showed.

Photos: {photos}; {splits}.
Teachers: EfficientNet-Lite0 at 96 px, ImageNet weights, fine-tuned. Machine: {machines}.
Two jobs ran side by side, {minutes} minutes in all: accuracies do not depend on that, latencies and seconds do, so do not
read those here.

```
python -m benchmarks.gallery            # all of it, from nothing; `python -m benchmarks.gallery alpha` one of them
```
"""


def _section(preset: dict[str, Any], run: dict[str, Any]) -> str:
    name = preset["name"]
    shared = run["shared"]
    counts = ", ".join(f"{count} {state}" for state, count in run["counts"].items())
    saved = (
        f"; {shared['stage_jobs']} shared training{'s' if shared['stage_jobs'] > 1 else ''} "
        f"served {shared['children_served']} jobs"
        if shared["stage_jobs"]
        else ""
    )
    files = " · ".join(f"[{file}]({name}/{file})" for file in _FILES)
    return f"""## {preset["title"].rstrip(".")}

{preset["asks"]} The report ({", ".join(preset["rows"])}): {preset["found"]}

![{run["alt"].replace("]", ")")}]({name}/plot.svg)

**This run:** {run["said"]}

Jobs: {counts}{saved}. {files}
"""
