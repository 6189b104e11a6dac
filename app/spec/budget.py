"""A number of bytes that a network's file may have, and how the network is stored in it."""

from typing import Annotated, Literal

from pydantic import Field

from app.spec.base import Spec

StoredBits = Literal[2, 3, 4, 5, 6, 7, 8, 16, 32]
"""2 to 8: as `quantize` stores by default (minmax, a grid a tensor; biases and norms in fp16). 16: fp16. 32: as they are."""
Bytes = Annotated[int, Field(ge=1)]
"""Of the file that is downloaded: weights, graph, class names, steps and metrics."""


class Budget(Spec):
    """At most `bytes`, when the network is stored at `bits`; a `quantize` step at these bits must still follow."""

    bytes: Bytes
    bits: StoredBits = 8
