"""The columns of the tidy table as people read them: a title, a unit, and how a value is written."""

from dataclasses import dataclass

from app.analysis.columns import is_share
from app.reports.wording import NOTHING, number, percent, points, significant

_TITLES = {
    "size_bytes": ("size", "bytes"),
    "parameters": ("parameters", ""),
    "macs": ("MACs", ""),
    "latency_ms": ("latency", "ms"),
    "epochs": ("trained", "epochs"),
    "train_macs": ("training", "MACs"),
    "seconds": ("took", "s"),
    "val_loss": ("val loss", "nat"),
    "test_loss": ("test loss", "nat"),
    "compression_ratio": ("compression ratio", ""),
    "speed_up": ("speed-up (MACs)", ""),
    "val_accuracy_best5": ("val accuracy, best five epochs", "%"),
}
_WHOLE = ("size_bytes", "parameters", "macs", "train_macs")


@dataclass(frozen=True)
class Measure:
    """`name`: of the column."""

    name: str

    @property
    def is_share(self) -> bool:
        return is_share(self.name)

    @property
    def is_whole(self) -> bool:
        return self.name in _WHOLE

    @property
    def title(self) -> str:
        return _TITLES[self.name][0] if self.name in _TITLES else self.name.replace("_", " ")

    @property
    def unit(self) -> str:
        return "%" if self.is_share else _TITLES.get(self.name, ("", ""))[1]

    def written(self, value: float | None) -> str:
        """Without the unit."""
        if value is None:
            return NOTHING
        if self.is_share:
            return percent(value, 2)
        return number(value) if self.is_whole else significant(value, 4)

    def difference(self, value: float | None) -> str:
        """Of two values, with its sign; of shares in points."""
        if value is None:
            return NOTHING
        if self.is_share:
            return points(value, 2)
        text = number(abs(value)) if self.is_whole else significant(abs(value), 3)
        return text if value == 0 else f"{'+' if value > 0 else '−'}{text}"

    @property
    def difference_unit(self) -> str:
        return "points" if self.is_share else self.unit

    def told(self, value: float | None) -> str:
        """With the unit, in a sentence."""
        return f"{self.written(value)} {self.unit}".rstrip()
