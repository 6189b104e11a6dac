"""Plots into pictures, by matplotlib's Figure alone: no pyplot, no window, one figure at a time.

Matplotlib is imported when the first picture is asked for: an API that draws nothing does not pay for it. Its settings are
one process's, and it does not promise that two threads may draw at once, so whoever draws holds a lock.
"""

import io
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from app.reports import svg
from app.reports.palette import INK, MUTED, SURFACE
from app.reports.plot import Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# 72 of matplotlib's dots are an inch, and we count a dot as a CSS pixel.
_DOTS = 72
_PNG_SCALE = 2
_FONT_PIXELS = 12.5

_drawing = threading.Lock()


def inline_svg(plot: Plot) -> str:
    """For a page whose style sheet has `palette.dark_rules()`."""
    return svg.inline(_drawn(plot, "svg"), plot)


def svg_file(plot: Plot) -> bytes:
    return svg.standalone(_drawn(plot, "svg"), plot)


def png_file(plot: Plot) -> bytes:
    """Twice as many pixels as the plot has, on white."""
    return _drawn(plot, "png")


def _drawn(plot: Plot, format: str) -> bytes:
    """The same bytes for the same plot, whenever it is drawn."""
    with _drawing:
        figure = _figure(plot)
        plot.draw(figure)
        buffer = io.BytesIO()
        metadata: dict[str, Any] = (
            {"Date": None} if format == "svg" else {"Software": None, "Description": plot.alt}
        )
        figure.savefig(buffer, format=format, dpi=_PNG_SCALE * _DOTS, metadata=metadata)
        return buffer.getvalue()


def _figure(plot: Plot) -> "Figure":
    _settings()
    from matplotlib.figure import Figure

    return Figure(figsize=(plot.width / _DOTS, plot.height / _DOTS), dpi=_DOTS, facecolor=SURFACE)


@lru_cache
def _settings() -> None:
    """For the whole process, once: nobody else draws here."""
    import matplotlib

    matplotlib.rcParams.update(
        {
            # Text stays text: it can be selected, read out and searched, and takes a tenth of the bytes.
            "svg.fonttype": "none",
            "svg.hashsalt": "fewbytes",
            # A class may be called $x$.
            "text.parse_math": False,
            "font.family": "DejaVu Sans",  # comes with matplotlib; a little wider than what a page shows
            "font.size": _FONT_PIXELS,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": MUTED,
            "axes.facecolor": "none",
            "axes.linewidth": 0.8,
            "axes.labelsize": _FONT_PIXELS,
            "axes.unicode_minus": True,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "xtick.labelsize": _FONT_PIXELS - 1,
            "ytick.labelsize": _FONT_PIXELS - 1,
            "legend.frameon": False,
            "legend.fontsize": _FONT_PIXELS - 0.5,
            "lines.linewidth": 1.8,
            "lines.markersize": 6,
        }
    )
