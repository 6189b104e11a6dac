"""The root of all step specs."""

from app.spec.base import Spec, Split


class StepSpec(Spec):
    """A subclass has a field `method: Literal["<its name>"]`; `worker/steps/<its name>.py` does the work."""

    method: str

    @property
    def trained_splits(self) -> list[Split]:
        """The splits whose images this step trains on; an evaluated split among them is marked as leaked."""
        return []

    @property
    def needs_model(self) -> bool:
        """Whether this step edits the network of the step before (false: it brings its own, as a student)."""
        return True

    @property
    def rewind_epochs(self) -> list[int]:
        """Epochs of the last training step before this one whose weights this step goes back to; 0 is before training."""
        return []

    @property
    def trains(self) -> bool:
        """Whether this step trains a network from epoch 0 on, so that a later step can rewind to one of its epochs."""
        return False

    @property
    def depends_on_later_steps(self) -> bool:
        """Whether the steps that follow decide what this one does: a file tells all steps of its job, and so they count
        among the bytes that a budget is for."""
        return False

    def class_errors(self, num_classes: int) -> list[tuple[str, str]]:
        """What is wrong with this step for data of so many classes: (field, message naming rule and way out) each; a field
        may be a pointer below the step, as a/b."""
        return []

    @property
    def bits_per_weight(self) -> float:
        """What a weight takes in this step's artifact; steps that change weights store them whole."""
        return 32

    @property
    def keeps_layers(self) -> bool:
        """Whether this step changes weights, or how they are stored, and leaves the layers as they are."""
        return False
