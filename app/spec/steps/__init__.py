"""One compression method a file. A subclass of `StepSpec` in this folder is part of the API the moment it exists."""

import importlib
import pkgutil
from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Field

from app.spec.steps.base import StepSpec


def _discover() -> dict[str, type[StepSpec]]:
    methods: dict[str, type[StepSpec]] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base"):
        for value in vars(importlib.import_module(f"{__name__}.{module}")).values():
            if isinstance(value, type) and issubclass(value, StepSpec) and value is not StepSpec:
                (method,) = value.model_fields["method"].annotation.__args__  # type: ignore[union-attr]
                methods[method] = value
    return methods


STEPS: dict[str, type[StepSpec]] = _discover()
AnyStep: Any = Annotated[reduce(or_, STEPS.values()), Field(discriminator="method")]
