"""D8: plain against depthwise convolutions over a range of sizes."""

from app.presets.base import Axis, ByteCounts, DistillingPreset, Step, points, values
from app.spec.networks import ArchitectureName


class Budgets(DistillingPreset):
    """Two designs over a range of budgets: two curves and where they cross."""

    NAME = "budgets"
    ROWS = ("D8", "C3")
    ASKS = "At which size do depthwise + pointwise convolutions beat plain ones, and where no longer?"
    FOUND = "Depthwise + pointwise: 89 % at 100 KB, and never above 90 % at 300 KB."
    SHORT = {
        "epochs": 10,
        "views": 4,
        "image_size": 32,
        "budgets": [15_000, 30_000, 60_000, 100_000],
        "seeds": 2,
    }

    plain: ArchitectureName = "report/plain"
    """In place of `student`: the widest network of the first curve."""
    separable: ArchitectureName = "report/separable-matched"
    """The widest network of the second."""
    budgets: ByteCounts = [30_000, 60_000, 100_000, 150_000, 200_000, 300_000]
    """What the file may have, stored in 8 bits. A design takes its largest width, up to 1, that keeps to it."""

    def steps(self) -> list[Step]:
        student = self.trained() | {
            "architecture": self.plain,
            "budget": {"bytes": self.budgets[0], "bits": 8},
        }
        return [
            self.distilled(student),
            {"method": "quantize", "scheme": "minmax", "bits": 8},
        ]

    def axes(self, teachers: list[str]) -> list[Axis]:
        field = "/steps/0/student/architecture"
        return [
            points("design", {"plain": {field: self.plain}, "separable": {field: self.separable}}),
            values("budget_bytes", "/steps/0/student/budget/bytes", self.budgets),
        ]
