"""What the OpenAPI says is what the service does: schemathesis, all checks, on both databases.

Here with few examples; `python -m tests.fuzz api` has many, and goes through the edges of every field too.
"""

import pytest

from app.settings import Settings
from tests.app.conftest import Service
from tests.fuzz.api import run


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    """As many requests as it likes."""
    return service_settings.model_copy(update={"requests_per_minute": 0})


def test_no_operation_contradicts_its_description(service: Service) -> None:
    """No answer of 5xx, none that is undocumented; what fits is taken, what does not is refused."""
    code, report = run(service, max_examples=3, phases="examples,fuzzing,stateful", seed=1)
    assert code == 0, report
