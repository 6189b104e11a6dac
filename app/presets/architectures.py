"""G: seven architectures of about one size."""

from app.presets.base import Axis, Epochs, Preset, Step, Values, values
from app.spec.networks import ArchitectureName


class Architectures(Preset):
    """Architecture at about 1 MB: plain, depthwise and grouped convolutions."""

    NAME = "architectures"
    ROWS = ("G", "G3", "G9")
    ASKS = "At one size: are plain, grouped or depthwise convolutions better?"
    FOUND = (
        "Mean of the best five epochs on val: plain 72.05 (242,203 parameters), depthwise + pointwise 70.55 (161,819), the "
        "same at the plain one's size 72.20 (239,899), groups in/2 70.5 (163,259), in/4 71.3 (166,139), in/8 71.9 "
        "(171,899), groups = 1 72.4 (243,323). Fewer groups are better."
    )
    SHORT = {"epochs": 8, "image_size": 32, "seeds": 2}
    BASELINE = {"architecture": "report/plain"}

    architectures: Values[ArchitectureName] = [
        "report/plain",
        "report/separable",
        "report/separable-matched",
        "report/groups-half",
        "report/groups-quarter",
        "report/groups-eighth",
        "report/groups-1",
    ]
    """In place of `student`."""
    epochs: Epochs = 200
    soft: bool = False
    """Distil each from the teachers instead of training it on the labels alone."""

    def steps(self) -> list[Step]:
        student = self.trained() | {"architecture": self.architectures[0]}
        return [{"method": "distill" if self.soft else "train", "student": student, "epochs": self.epochs}]

    def axes(self, teachers: list[str]) -> list[Axis]:
        return [values("architecture", "/steps/0/student/architecture", self.architectures)]

    def baseline(self) -> dict[str, str]:
        return {"architecture": self.architectures[0]}
