"""Learning rates against torch's own schedulers where torch has one."""

import pytest
import torch

from app.spec.training import Training
from worker.training.schedules import learning_rate


def _rates(spec, steps_per_epoch=5):
    return [learning_rate(spec, step, steps_per_epoch) for step in range(spec.epochs * steps_per_epoch)]


def _torchs(make_scheduler, count):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs():
    spec = Training(epochs=4, learning_rate=0.1, warmup_epochs=0, schedule="cosine")
    theirs = _torchs(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20), 20)
    assert _rates(spec) == pytest.approx(theirs)


def test_one_cycle_is_torchs():
    """torch refuses to step past the last rate, so that one is compared with its documented value."""
    ours = _rates(Training(epochs=4, learning_rate=0.1, schedule="one_cycle"))
    theirs = _torchs(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20), 19
    )
    assert ours == pytest.approx([*theirs, 0.1 / 25 / 1e4])


def test_step_drops_at_half_and_three_quarters():
    rates = _rates(Training(epochs=4, learning_rate=0.1, warmup_epochs=0, schedule="step"))
    assert rates == pytest.approx([0.1] * 10 + [0.01] * 5 + [0.001] * 5)


def test_warmup_rises_linearly_in_steps():
    rates = _rates(Training(epochs=4, learning_rate=0.1, warmup_epochs=1, schedule="constant"))
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, *[0.1] * 16])


@pytest.mark.parametrize("schedule", ["cosine", "constant", "step", "one_cycle"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_the_shortest_runs_have_a_rate(schedule, epochs):
    """One step in all is a legal job."""
    rates = _rates(Training(epochs=epochs, learning_rate=0.1, schedule=schedule), steps_per_epoch=1)
    assert all(0 <= rate <= 0.1 for rate in rates)
    assert rates[0] > 0
