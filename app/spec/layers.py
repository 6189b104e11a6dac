"""How a step says which layers it is about."""

from typing import Annotated

from pydantic import Field

from app.spec.base import Spec

Pattern = Annotated[str, Field(min_length=1, max_length=512)]


class LayerChoice(Spec):
    """Layers by name, as the teacher's layer table has them. `*` stands for any letters, `?` for one, `[ab]` for a or b."""

    layers: Annotated[list[Pattern], Field(min_length=1, max_length=1000)] = ["*"]
    """The layers that the step may change."""
    exclude: Annotated[list[Pattern], Field(max_length=1000)] = []
    """Of these, the ones that it must not."""
