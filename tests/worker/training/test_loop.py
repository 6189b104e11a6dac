"""The training loop: it learns, it stops when told, and a killed run ends with the weights of an undisturbed
one."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from app.errors import Problem
from app.spec.training import Training
from models.load_artifact import Score
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run, stop_at
from worker.run import Stopped
from worker.training import checkpoint
from worker.training.loop import build_optimizer, concatenated, train
from worker.training.losses import hard_loss

# 24 images in batches of 8: three steps an epoch, twelve in all.
SPEC = Training(epochs=4, batch_size=8, learning_rate=5e-3, warmup_epochs=1)


def make_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


def train_once(work_dir: Path, spec: Training = SPEC, network: nn.Module | None = None, **changes):
    run = make_run(work_dir, **changes)
    trained = train(
        network or make_network(),
        spec,
        run,
        images=concatenated(run, ["train"], spec),
        preprocessing=PREPROCESSING,
        batch_loss=lambda logits, batch: hard_loss(logits, batch.labels_N),
    )
    return trained, run


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    for (name, left), right in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


def test_it_learns_and_notes_every_epoch(tmp_path):
    spec = SPEC.model_copy(update={"epochs": 12, "learning_rate": 2e-2})
    _, run = train_once(tmp_path, spec)
    losses, accuracies = run.reporter.values("train_loss", "train"), run.reporter.values("accuracy", "val")
    assert len(losses) == len(accuracies) == 12
    assert losses[-1] < losses[0] / 2
    assert run.reporter.values("best_accuracy", "val") == [max(accuracies)]
    assert run.reporter.values("best_accuracy", "val")[0] > 0.8
    assert run.reporter.values("last_accuracy", "val") == [accuracies[-1]]
    top = sorted(accuracies)[-5:]
    assert run.reporter.values("best_k_mean_accuracy_optimistic", "val") == pytest.approx([sum(top) / 5])
    progress = [message for message in run.reporter.messages if message["type"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == 12


def test_the_result_is_in_eval_mode_and_laid_out_as_usual(tmp_path):
    network, _ = train_once(tmp_path)
    assert not any(module.training for module in network.modules())
    assert all(tensor.is_contiguous() for tensor in network.state_dict().values())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_same_seed_same_weights_other_seed_others(tmp_path):
    first, _ = train_once(tmp_path / "a")
    second, _ = train_once(tmp_path / "b")
    assert_same_weights(first, second)
    other, _ = train_once(tmp_path / "c", seed=1)
    assert not torch.equal(first[0].weight, other[0].weight)


@pytest.mark.parametrize("step", [1, 2, 4, 7, 12])
@pytest.mark.parametrize("select", ["best", "last"])
def test_a_preempted_run_goes_on_to_the_bit(tmp_path, step, select):
    """Stopped before any step, in mid-epoch or at the very end; the second run begins with other weights and
    other random state."""
    spec = SPEC.model_copy(update={"select": select})
    undisturbed, calm = train_once(tmp_path / "calm", spec)
    with pytest.raises(Stopped) as stopped:
        train_once(tmp_path / "job", spec, stop_requested=stop_at(step, "preempt"))
    assert stopped.value.stop == "preempt"
    torch.manual_seed(99)
    resumed, run = train_once(tmp_path / "job", spec, network=make_network(seed=5) if step > 1 else None)
    assert_same_weights(undisturbed, resumed)
    for name in ("best_accuracy", "last_accuracy", "best_k_mean_accuracy_optimistic"):
        assert run.reporter.values(name, "val") == calm.reporter.values(name, "val")
    assert run.reporter.values("train_loss", "train")[-1] == calm.reporter.values("train_loss", "train")[-1]


def test_the_best_epoch_before_a_kill_stays_the_best(tmp_path, monkeypatch):
    """Epoch 1 is never beaten again: the resumed run must hand over its weights, which only the checkpoint has."""
    monkeypatch.setattr("worker.training.loop.evaluate", _always_worse())
    undisturbed, _ = train_once(tmp_path / "calm")
    last, _ = train_once(tmp_path / "last", SPEC.model_copy(update={"select": "last"}))
    assert not torch.equal(undisturbed[0].weight, last[0].weight)
    monkeypatch.setattr("worker.training.loop.evaluate", _always_worse())
    with pytest.raises(Stopped):
        train_once(tmp_path / "job", stop_requested=stop_at(8, "preempt"))
    resumed, run = train_once(tmp_path / "job", network=make_network(seed=5))
    assert_same_weights(undisturbed, resumed)
    assert run.reporter.values("best_epoch") == [1]


def _always_worse():
    """Scores that fall from call to call, whatever the network."""
    correct = iter(range(9, 0, -1))
    return lambda network, images, labels, preprocessing: Score(10, next(correct), 1.0)


def test_a_finished_run_that_starts_again_does_nothing_more(tmp_path):
    """A job whose later step died repeats this one: from the last checkpoint, without a single step."""
    first, _ = train_once(tmp_path)
    again, run = train_once(tmp_path, network=make_network(seed=5))
    assert_same_weights(first, again)
    assert run.reporter.values("train_loss", "train") == []


KILLED = """
import sys, time
from pathlib import Path
import torch
from tests.worker.training.test_loop import make_network, train_once

torch.set_num_threads(1)
calls = 0
def slow_down():
    global calls
    calls += 1
    print(calls, flush=True)
    time.sleep(0.03)

network, _ = train_once(Path(sys.argv[1]), stop_requested=slow_down, checkpoint_seconds=0.0)
torch.save(network.state_dict(), sys.argv[2])
"""


def test_kill_9_at_any_moment_changes_nothing(tmp_path):
    """Fresh processes that are killed after 2, 5 and 8 steps, then one that may finish."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        undisturbed, _ = train_once(tmp_path / "calm")
    finally:
        torch.set_num_threads(threads)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "job"), str(tmp_path / "weights.pth")]
    for steps in (3, 3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(steps):
            assert process.stdout.readline()
        time.sleep(0.04)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(finished.stdout.splitlines()) < 12, "the checkpoints were not used"
    resumed = torch.load(tmp_path / "weights.pth", weights_only=True)
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    """The newest file is cut: the one before it takes over, and the result is still the same."""
    undisturbed, _ = train_once(tmp_path / "calm")
    with pytest.raises(Stopped):
        train_once(tmp_path / "job", stop_requested=stop_at(8, "preempt"))
    newest = tmp_path / "job" / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    resumed, run = train_once(tmp_path / "job")
    assert "training goes on at step 6" in run.reporter.logs()
    assert_same_weights(undisturbed, resumed)


def test_two_checkpoints_are_kept_and_nothing_else(tmp_path):
    train_once(tmp_path, checkpoint_seconds=0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_a_checkpoint_of_another_training_is_not_taken(tmp_path):
    """Same folder, other learning rate: it must begin anew."""
    train_once(tmp_path)
    _, run = train_once(tmp_path, SPEC.model_copy(update={"learning_rate": 1e-3}))
    assert len(run.reporter.values("train_loss", "train")) == 4


def test_every_bit_of_a_checkpoint_is_covered_by_its_digest(tmp_path):
    checkpoint.save_checkpoint(tmp_path, {"fingerprint": "f", "weights": torch.arange(100.0)})
    path = tmp_path / "checkpoint.pt"
    assert checkpoint.load_checkpoint(tmp_path, fingerprint="f") is not None
    content = bytearray(path.read_bytes())
    for position in (0, 40, len(content) // 2, len(content) - 1):
        broken = bytearray(content)
        broken[position] ^= 1
        path.write_bytes(broken)
        assert checkpoint.load_checkpoint(tmp_path, fingerprint="f") is None


def test_cancel_hands_over_the_best_network_so_far(tmp_path):
    """After two whole epochs and a step: the network is the better one of the two, ready to use."""
    with pytest.raises(Stopped) as stopped:
        train_once(tmp_path / "job", stop_requested=stop_at(8, "cancel"))
    assert stopped.value.stop == "cancel"
    best = stopped.value.model
    assert not best.training
    state = checkpoint.load_checkpoint(tmp_path / "job", fingerprint=_fingerprint(tmp_path / "job"))
    for name, tensor in state["best_weights"].items():
        assert torch.equal(best.state_dict()[name], tensor)


def _fingerprint(folder: Path) -> str:
    content = (folder / "checkpoint.pt").read_bytes()[32:]
    return torch.load(io.BytesIO(content), weights_only=True)["fingerprint"]


def test_cancel_before_the_first_epoch_has_nothing_to_hand_over(tmp_path):
    with pytest.raises(Stopped) as stopped:
        train_once(tmp_path, stop_requested=stop_at(2, "cancel"))
    assert stopped.value.model is None


def test_divergence_names_the_epoch_and_the_learning_rate(tmp_path):
    spec = Training(
        epochs=3, batch_size=8, learning_rate=10.0, optimizer="sgd", warmup_epochs=0, momentum=0.0
    )
    run = make_run(tmp_path)
    calls = 0

    def explodes_in_epoch_2(logits, batch):
        nonlocal calls
        calls += 1
        return hard_loss(logits, batch.labels_N) * (float("nan") if calls > 3 else 1e-6)

    with pytest.raises(Problem) as problem:
        train(
            make_network(),
            spec,
            run,
            images=concatenated(run, ["train"], spec),
            preprocessing=PREPROCESSING,
            batch_loss=explodes_in_epoch_2,
        )
    assert (problem.value.status, problem.value.code) == (422, "TRAINING_DIVERGED")
    assert "epoch 2 of 3" in problem.value.detail
    assert "learning_rate 10.0" in problem.value.detail


def test_an_absurd_learning_rate_really_diverges(tmp_path):
    """No mock: SGD at rate 10 without normalisation."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 32 * 32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
    )
    spec = Training(
        epochs=20, batch_size=8, learning_rate=10.0, optimizer="sgd", warmup_epochs=0, schedule="constant"
    )
    with pytest.raises(Problem, match="TRAINING_DIVERGED"):
        train_once(tmp_path, spec, network)


def test_fp16_amp_is_refused_on_a_cpu_and_bf16_is_warned_about(tmp_path):
    with pytest.raises(Problem, match="PRECISION_UNSUPPORTED"):
        train_once(tmp_path, SPEC.model_copy(update={"precision": "amp_fp16"}))
    _, run = train_once(
        tmp_path, SPEC.model_copy(update={"precision": "amp_bf16", "epochs": 1, "warmup_epochs": 0.0})
    )
    assert any("ten times slower" in message for message in run.reporter.logs())


def test_without_val_the_last_epoch_is_taken_and_said(tmp_path):
    last, _ = train_once(
        tmp_path / "a", SPEC.model_copy(update={"select": "last"}), data=MemoryData(train=24)
    )
    best, run = train_once(tmp_path / "b", data=MemoryData(train=24))
    assert_same_weights(last, best)
    assert any("needs a val split" in message for message in run.reporter.logs())


def test_a_single_image_left_over_is_passed_by(tmp_path):
    """25 images in batches of 8: batch normalisation cannot train on a batch of one."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    train_once(tmp_path, network=network, data=MemoryData(train=25, val=3))


def test_a_network_that_flattens_with_view_trains(tmp_path):
    """`view` cannot flatten a channels-last tensor; the course's networks do just that."""

    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Conv2d(3, 4, 3, stride=4)
            self.head = nn.Linear(4 * 8 * 8, 3)

        def forward(self, images):
            return self.head(self.features(images).view(len(images), -1))

    network, _ = train_once(tmp_path, network=Views())
    assert not network.training


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_biases_and_norms_are_not_decayed(optimizer):
    network = make_network()
    groups = build_optimizer(network, Training(optimizer=optimizer, weight_decay=0.1)).param_groups
    assert {parameter.dim() for parameter in groups[0]["params"]} == {2, 4}
    assert {parameter.dim() for parameter in groups[1]["params"]} == {1}
    assert (groups[0]["weight_decay"], groups[1]["weight_decay"]) == (0.1, 0)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_several_splits_are_one_training_set(tmp_path):
    """Every image of train and unlabeled once an epoch, labels -1 where there are none."""
    data = MemoryData(train=20, unlabeled=11, val=3)
    run = make_run(tmp_path, data=data)
    images = concatenated(run, ["train", "unlabeled"], SPEC)
    assert images.steps_per_epoch == 4
    batches = [images.batch(step, "none") for step in range(4, 8)]
    assert sorted(torch.cat([batch.indices_N for batch in batches]).tolist()) == list(range(31))
    assert sorted(torch.cat([batch.labels_N for batch in batches]).tolist())[:12] == [-1] * 11 + [0]
    both = torch.cat([data.images("train", PREPROCESSING), data.images("unlabeled", PREPROCESSING)])
    batch = batches[0]
    expected = (both[batch.indices_N].float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(images.pixels(batch, PREPROCESSING), expected)


def test_every_epoch_has_an_order_of_its_own(tmp_path):
    run = make_run(tmp_path)
    images = concatenated(run, ["train"], SPEC)
    first, second = (
        torch.cat([images.batch(3 * epoch + step, "none").indices_N for step in range(3)])
        for epoch in range(2)
    )
    assert first.tolist() != second.tolist()
    assert sorted(first.tolist()) == sorted(second.tolist())


@pytest.mark.parametrize(("call", "is_kept"), [(3, False), (5, True)])
def test_without_val_a_cancel_keeps_the_weights_as_they_are(tmp_path: Path, call: int, is_kept: bool) -> None:
    """From the first whole epoch on: three steps."""
    data = MemoryData(train=24)
    network = make_network()
    with pytest.raises(Stopped) as stopped:
        train_once(tmp_path, network=network, data=data, stop_requested=stop_at(call, "cancel"))
    assert stopped.value.model is (network if is_kept else None)
