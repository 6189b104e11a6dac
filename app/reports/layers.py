"""The layers of a network: what each holds, takes and computes, and its share of the whole."""

from collections.abc import Sequence
from typing import Any

from app.reports.document import Column, Table
from app.reports.figures import dot_rows, entitle, rows_height
from app.reports.plot import Plot
from app.reports.wording import number, percent, plural, points, shown, significant

_MOST_DRAWN = 12


def layer_table(layers: Sequence[dict[str, Any]], caption: str) -> Table:
    """One row a layer in the order of the network, and their sum. Layers that hold and compute nothing are counted in a
    row of their own."""
    whole = {key: sum(row[key] for row in layers) for key in ("parameters", "size_bytes", "macs")}
    columns = [
        Column("layer", is_number=False),
        Column("type", is_number=False),
        Column("output", is_number=False),
        Column("parameters"),
        Column("parameters", "%"),
        Column("stored", "bytes"),
        Column("stored", "%"),
        Column("MACs"),
        Column("MACs", "%"),
    ]
    rows = [_row(row, whole) for row in layers if _weighs(row)]
    light = [row for row in layers if not _weighs(row)]
    if light:
        rows.append([f"{plural(len(light), 'layer')} without any", "", "", *["0"] * 6])
    total = {"name": "sum", "type": "", "output_shape": None, **whole}
    return Table(caption, columns, [*rows, _row(total, whole)], emphasised=len(rows))


def _weighs(row: dict[str, Any]) -> bool:
    return bool(row["parameters"] or row["size_bytes"] or row["macs"])


def _row(row: dict[str, Any], whole: dict[str, int]) -> list[str]:
    shape = row["output_shape"]
    cells = [shown(row["name"], 60), shown(row["type"]), " × ".join(map(str, shape)) if shape else ""]
    for key in ("parameters", "size_bytes", "macs"):
        cells += [number(row[key]), percent(_share(row[key], whole[key]))]
    return cells


def _share(value: int, whole: int) -> float | None:
    return value / whole if whole else None


def layer_plot(layers: Sequence[dict[str, Any]]) -> Plot | None:
    """Shares of the heaviest layers, in the order of the network."""
    whole = {key: sum(row[key] for row in layers) for key in ("parameters", "size_bytes", "macs")}
    heavy = [row for row in layers if _weighs(row)]
    if not heavy:
        return None

    def weight(row: dict[str, Any]) -> float:
        return max(_share(row[key], whole[key]) or 0.0 for key in whole)

    drawn = sorted(heavy, key=weight, reverse=True)[:_MOST_DRAWN]
    drawn = [row for row in heavy if any(row is each for each in drawn)]
    groups = {"parameters": "parameters", "size_bytes": "stored bytes", "macs": "MACs"}

    def draw(figure: Any) -> None:
        shares = [(label, [_share(row[key], whole[key]) for row in drawn]) for key, label in groups.items()]
        dot_rows(figure, [row["name"] for row in drawn], shares, "share of the whole network")
        entitle(figure, "Where parameters, bytes and MACs are")

    first = max(heavy, key=lambda row: row["size_bytes"])
    busiest = max(heavy, key=lambda row: row["macs"])
    rest = len(heavy) - len(drawn)
    return Plot(
        "layers",
        "Where parameters, bytes and MACs are",
        f"{shown(first['name'])} holds {percent(_share(first['size_bytes'], whole['size_bytes']))} % of the stored bytes "
        f"and {percent(_share(first['parameters'], whole['parameters']))} % of the parameters; {shown(busiest['name'])} "
        f"computes {percent(_share(busiest['macs'], whole['macs']))} % of the multiply-adds."
        + (f" {plural(rest, 'lighter layer')} not drawn." if rest else ""),
        ["layer", "type", "parameters", "size_bytes", "macs"],
        [[row["name"], row["type"], row["parameters"], row["size_bytes"], row["macs"]] for row in layers],
        draw,
        height=rows_height(len(drawn)),
    )


# ---- sensitivity


def sensitivity_table(found: dict[str, Any]) -> Table:
    columns = [
        Column("layer", is_number=False),
        Column("weights"),
        Column(f"accuracy in {found['bits']} bits", "%"),
        Column("change", "points"),
        Column("divergence", "nat"),
        Column(f"accuracy without {100 * found['share']:.0f} % of its channels", "%"),
        Column("change", "points"),
        Column("divergence", "nat"),
    ]
    rows = []
    for row in found["layers"]:
        cells = [shown(row["layer"], 60), number(row["parameters"])]
        for kind in ("quantized", "pruned"):
            cells += _changed(row[kind], found["accuracy"])
        rows.append(cells)
    note = (
        f"One layer at a time, nothing trained, on {found['num_images']:,} images of {found['split']}, where the answer "
        f"as it is gets {percent(found['accuracy'])} % right. Bits: minmax, per tensor. Channels: those with the smallest "
        "l2 norm, silent. The channels of the last layer are the classes and stay. "
        "Divergence: mean KL from the unchanged answers."
    )
    return Table("What each layer bears", columns, rows, note=note)


def _changed(measured: dict[str, float] | None, before: float) -> list[str]:
    if measured is None:
        return [number(None)] * 3
    return [
        percent(measured["accuracy"]),
        points(measured["accuracy"] - before),
        significant(measured["divergence"]),
    ]


def sensitivity_plot(found: dict[str, Any]) -> Plot | None:
    """The layers that bear the least, in the order of the network."""

    def change(row: dict[str, Any], kind: str) -> float | None:
        return None if row[kind] is None else row[kind]["accuracy"] - found["accuracy"]

    def worst(row: dict[str, Any]) -> float:
        return min(change(row, "quantized") or 0.0, change(row, "pruned") or 0.0)

    drawn = sorted(found["layers"], key=worst)[: 2 * _MOST_DRAWN]
    drawn = [row for row in found["layers"] if any(row is each for each in drawn)]
    if not drawn:
        return None
    bits, share = f"stored in {found['bits']} bits", f"{100 * found['share']:.0f} % of its channels silent"

    def draw(figure: Any) -> None:
        groups = [
            (bits, [change(row, "quantized") for row in drawn]),
            (share, [change(row, "pruned") for row in drawn]),
        ]
        dot_rows(
            figure,
            [row["layer"] for row in drawn],
            groups,
            f"change of {found['split']} accuracy",
            unit="points",
        )
        entitle(figure, "What each layer bears")

    weakest = min(drawn, key=worst)
    return Plot(
        "sensitivity",
        "What each layer bears",
        f"The layer that bears the least is {shown(weakest['layer'])}: {_told(change(weakest, 'quantized'), bits)}, "
        f"{_told(change(weakest, 'pruned'), share)}, from {percent(found['accuracy'])} % on {found['split']}.",
        ["layer", "quantized_accuracy", "quantized_divergence", "pruned_accuracy", "pruned_divergence"],
        [
            [
                row["layer"],
                *(
                    (row[kind] or {}).get(name)
                    for kind in ("quantized", "pruned")
                    for name in ("accuracy", "divergence")
                ),
            ]
            for row in found["layers"]
        ],
        draw,
        height=rows_height(len(drawn)),
    )


def _told(change: float | None, how: str) -> str:
    return f"not measured with {how}" if change is None else f"{points(change)} points {how}"
