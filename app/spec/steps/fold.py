"""Folding batch norms into the layers before them."""

from typing import Literal

from app.spec.steps.base import StepSpec


class Fold(StepSpec):
    """Fold each batch norm that follows a convolution or linear layer into it: same outputs, fewer parameters and calls.

    Do it last before quantizing: a network without batch norms trains worse. What could not be folded is named, with the
    reason, in the step's `details`.
    """

    method: Literal["fold"]
