"""What every spec has in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "val", "test", "unlabeled"]
# 2**53: the largest range that every JSON reader keeps exact.
Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Spec(BaseModel):
    """Strict: a misspelt field is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)
