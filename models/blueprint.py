"""What a family file says about each architecture it builds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

OptionType = Literal["integer", "number", "string"]
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "string": (str,)}


@dataclass(frozen=True)
class Option:
    """One knob of an architecture. `minimum` and `maximum` are inclusive; `choices`: a string's values."""

    type: OptionType
    default: int | float | str
    description: str
    minimum: int | float | None = None
    maximum: int | float | None = None
    choices: tuple[str, ...] | None = None

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError, naming value, rule and way out, when `value` is not one this option takes."""
        if not self._takes(value):
            raise ValueError(
                f"option {name!r} is {value!r}: it takes {self.rule()}; the default is {self.default!r}"
            )

    def _takes(self, value: Any) -> bool:
        # bool is an int to Python, but `true` channels is a mistake.
        right_type = isinstance(value, _PYTHON_TYPES[self.type]) and not isinstance(value, bool)
        if not right_type:
            return False
        if self.choices is not None:
            return value in self.choices
        return (self.minimum is None or value >= self.minimum) and (
            self.maximum is None or value <= self.maximum
        )

    def rule(self) -> str:
        """What the option takes, in words: "an integer from 0 to 7"."""
        if self.choices is not None:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        article = "an" if self.type == "integer" else "a"
        return f"{article} {self.type} from {self.minimum} to {self.maximum}"


@dataclass(frozen=True)
class Architecture:
    """One architecture: its defaults, where it comes from, and the function that builds it.

    `build(num_classes=..., image_size=..., <every option>=...)` returns a plain module with random weights
    that takes [N, 3, image_size, image_size] and gives logits [N, num_classes].
    """

    name: str
    family: str
    source: str
    """The paper or URL the numbers were taken from."""
    image_size: int
    """Side of the square input the source used, pixels."""
    num_classes: int
    build: Callable[..., nn.Module]
    options: dict[str, Option] = field(default_factory=dict)
    minimum_image_size: int = 1
    """Below this side a pooling or a convolution would be left with nothing."""
    image_size_multiple: int = 1
    """The side must be a multiple of this (a transformer's patch)."""
