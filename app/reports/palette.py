"""The colours of plots, and what becomes of each in a dark page.

Series: Okabe and Ito's set for all kinds of colour vision (https://jfly.uni-koeln.de/color/), less yellow and black, which
vanish on one of the two grounds. No series is told by its colour alone: each has a marker and a dash of its own.
"""

from typing import NamedTuple

INK = "#1b1f24"
MUTED = "#5b6470"
GRID = "#dde1e6"
SURFACE = "#ffffff"
ON_HEAT = "#10151b"
"""Ink and paper within heat maps, whose ground is the same in the dark."""
ON_DEEP_HEAT = "#fdfdfe"


class Series(NamedTuple):
    colour: str
    marker: str
    dash: str | tuple[float, tuple[float, ...]]


BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072b2",
    "#c9510c",
    "#00805e",
    "#a64d83",
    "#a87300",
    "#3d8fc4",
)
"""Vermillion, green, purple and orange are darker than Okabe and Ito's, for a contrast of 3 to 1 on white."""
SERIES = (
    Series(BLUE, "o", "-"),
    Series(VERMILLION, "s", (0, (5, 1.5))),
    Series(GREEN, "^", (0, (1.5, 1.5))),
    Series(PURPLE, "D", (0, (6, 1.5, 1.5, 1.5))),
    Series(ORANGE, "v", (0, (8, 2))),
    Series(SKY, "P", (0, (3, 1.5, 1.5, 1.5, 1.5, 1.5))),
)
DARK = {
    INK: "#e6e9ed",
    MUTED: "#a3acb8",
    GRID: "#333b45",
    SURFACE: "#14181d",
    BLUE: "#56a9e8",
    VERMILLION: "#ff8f57",
    GREEN: "#36c79c",
    PURPLE: "#e093c0",
    ORANGE: "#e6b145",
    SKY: "#8fd0f5",
}


def series(position: int) -> Series:
    return SERIES[position % len(SERIES)]


def dark_rules() -> str:
    """CSS that changes the colours of a plot's marks, which are presentation attributes, in a dark page."""
    rules = [
        f'[{attribute}="{light}"]{{{attribute}:{dark}}}'
        for light, dark in DARK.items()
        for attribute in ("fill", "stroke")
    ]
    return "@media screen and (prefers-color-scheme:dark){" + "".join(rules) + "}"
