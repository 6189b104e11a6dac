"""What JSON means by a number, and what it does not."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.spec.resources import DatasetSpec


@pytest.mark.parametrize("value", [7, 7.0])
def test_a_whole_number_is_an_integer_however_it_is_written(value: Any) -> None:
    """JSON has one kind of number; clients that know only doubles write 7.0."""
    assert DatasetSpec(file="a", split_seed=value).split_seed == 7


@pytest.mark.parametrize("value", [True, "7", 7.5, None, [7], 1e300])
def test_what_is_no_integer_is_refused(value: Any) -> None:
    """A reader that guesses reads `true` as 1 and `"7"` as 7."""
    with pytest.raises(ValidationError):
        DatasetSpec(file="a", split_seed=value)


@pytest.mark.parametrize("value", [True, "0.1"])
def test_what_is_no_number_is_refused(value: Any) -> None:
    """The same for fractions."""
    with pytest.raises(ValidationError):
        DatasetSpec(file="a", val_fraction=value)
