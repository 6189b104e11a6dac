"""What a step may ask of the training loop: a part of the schedule, another forward pass or optimizer, masks,
snapshots, the cost, and batches in parts when memory runs out."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from app.errors import Problem
from app.spec.training import Training
from models import as_network, layer_table
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run, stop_at
from tests.worker.training.test_loop import SPEC, assert_same_weights, make_network
from worker.run import Stopped
from worker.training.gradients import Gradients
from worker.training.loop import build_optimizer, concatenated, train
from worker.training.losses import hard_loss
from worker.training.schedules import learning_rate
from worker.training.snapshots import FOLDER, load_snapshot


def train_with(work_dir, spec=SPEC, network=None, *, splits=("train",), options=None, **changes):
    run = make_run(work_dir, **changes)
    trained = train(
        network or make_network(),
        spec,
        run,
        images=concatenated(run, splits, spec),
        preprocessing=PREPROCESSING,
        batch_loss=hard_loss,
        **(options or {}),
    )
    return trained, run


def plain_network(seed: int = 0) -> nn.Module:
    """Without batch normalisation or dropout: every image by itself."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 8 * 8, 3))


class TestFromEpoch:
    def test_the_schedule_goes_on_where_it_is_asked_to(self, tmp_path):
        """Epochs 3 and 4 of 4: the rates are the last two of a whole training, the epochs count from 1."""
        _, whole = train_with(tmp_path / "whole")
        _, run = train_with(tmp_path / "end", options={"from_epoch": 2})
        assert run.reporter.values("learning_rate") == whole.reporter.values("learning_rate")[2:]
        epochs = [m["epoch"] for m in run.reporter.messages if m.get("name") == "learning_rate"]
        assert epochs == [1, 2]
        progress = [m for m in run.reporter.messages if m["type"] == "progress"]
        assert progress[-1]["done"] == progress[-1]["total"] == 2
        assert run.cost.epochs == 2

    def test_weights_and_images_of_that_epoch_make_it_the_same_training(self, tmp_path):
        """SGD without momentum has no memory: from the snapshot of epoch 2, epochs 3 and 4 end as the whole."""
        spec = SPEC.model_copy(update={"optimizer": "sgd", "momentum": 0.0, "select": "last"})
        whole, _ = train_with(tmp_path / "whole", spec, snapshot_epochs=frozenset({2}))
        network = make_network(seed=9)
        network.load_state_dict(load_snapshot(tmp_path / "whole" / FOLDER, 2))
        rewound, _ = train_with(tmp_path / "rewound", spec, network, options={"from_epoch": 2})
        assert_same_weights(whole, rewound)

    @pytest.mark.parametrize("step", [2, 5])
    def test_it_resumes_to_the_bit(self, tmp_path, step):
        undisturbed, calm = train_with(tmp_path / "calm", options={"from_epoch": 2})
        with pytest.raises(Stopped):
            train_with(tmp_path / "job", options={"from_epoch": 2}, stop_requested=stop_at(step, "preempt"))
        resumed, run = train_with(tmp_path / "job", network=make_network(5), options={"from_epoch": 2})
        assert_same_weights(undisturbed, resumed)
        assert (run.cost.epochs, run.cost.macs) == (calm.cost.epochs, calm.cost.macs)

    def test_a_checkpoint_of_another_beginning_is_not_taken(self, tmp_path):
        train_with(tmp_path)
        _, run = train_with(tmp_path, options={"from_epoch": 3})
        assert len(run.reporter.values("train_loss", "train")) == 1

    def test_at_the_end_nothing_is_left_to_train(self, tmp_path):
        network, run = train_with(tmp_path, options={"from_epoch": 4})
        assert_same_weights(network, make_network())
        assert not network.training
        assert run.cost.epochs == 0


class TestSnapshots:
    def test_the_weights_of_the_asked_epochs_are_kept(self, tmp_path):
        """0 is before training; the last one is what `select` last gives."""
        spec = SPEC.model_copy(update={"select": "last"})
        trained, _ = train_with(tmp_path, spec, snapshot_epochs=frozenset({0, 2, 4}))
        before, middle, after = (load_snapshot(tmp_path / FOLDER, epoch) for epoch in (0, 2, 4))
        assert torch.equal(before["0.weight"], make_network()[0].weight)
        assert not torch.equal(middle["0.weight"], before["0.weight"])
        assert all(torch.equal(after[name], tensor) for name, tensor in trained.state_dict().items())
        assert len(list((tmp_path / FOLDER).iterdir())) == 3

    @pytest.mark.parametrize("step", [1, 4, 8])
    def test_a_run_that_was_stopped_keeps_the_same(self, tmp_path, step):
        epochs = frozenset({0, 1, 3})
        train_with(tmp_path / "calm", snapshot_epochs=epochs)
        with pytest.raises(Stopped):
            train_with(tmp_path / "job", snapshot_epochs=epochs, stop_requested=stop_at(step, "preempt"))
        train_with(tmp_path / "job", snapshot_epochs=epochs)
        for epoch in epochs:
            first, second = (load_snapshot(tmp_path / name / FOLDER, epoch) for name in ("calm", "job"))
            assert all(torch.equal(first[name], second[name]) for name in first)

    def test_of_a_wrapped_network_the_network_is_kept(self, tmp_path):
        """A later step loads it into a network that has no wrapper, and a cancelled run hands over the same."""
        inner = as_network(plain_network().eval(), torch.rand(1, 3, 32, 32))
        expected = inner.state_dict().keys()
        wrapper = Wrapped(inner)
        with pytest.raises(Stopped) as stopped:
            train_with(
                tmp_path,
                network=wrapper,
                snapshot_epochs=frozenset({0}),
                stop_requested=stop_at(5, "cancel"),
            )
        assert stopped.value.model is inner
        assert load_snapshot(tmp_path / FOLDER, 0).keys() == expected


class Wrapped(nn.Module):
    """A network with a parameter that only training needs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.network = network

    def forward(self, images):
        return self.network(images) * self.scale


class TestCost:
    def test_epochs_seconds_and_macs_are_added_up_and_noted(self, tmp_path):
        """25 images in batches of 8: 24 are shown an epoch, forward and backward of the network, forward of the teacher."""
        network = as_network(plain_network().eval(), torch.rand(1, 3, 32, 32))
        macs = layer_table(network)["macs"]
        _, run = train_with(
            tmp_path, network=network, data=MemoryData(train=25, val=3), options={"teacher_macs": 1000}
        )
        assert macs == 4 * 3 * 9 * 64 + 4 * 64 * 3
        assert run.cost.epochs == 4
        assert run.cost.macs == 4 * 24 * (3 * macs + 1000)
        assert run.cost.seconds > 0
        for name, value in vars(run.cost).items():
            assert run.reporter.values(f"trained_{name}") == [value]

    def test_macs_of_another_module_are_said_by_the_caller(self, tmp_path):
        _, run = train_with(tmp_path / "a", options={"macs": 7})
        assert run.cost.macs == 4 * 24 * 3 * 7
        _, run = train_with(tmp_path / "b")
        assert run.cost.macs == 0

    def test_several_trainings_of_a_step_are_one_sum(self, tmp_path):
        run = make_run(tmp_path)
        for name in ("first", "second"):
            train(
                make_network(),
                SPEC,
                run.nested(name),
                images=concatenated(run, ["train"], SPEC),
                preprocessing=PREPROCESSING,
                batch_loss=hard_loss,
            )
        assert run.cost.epochs == 8
        assert run.reporter.values("trained_epochs") == [4, 8]

    def test_seconds_of_an_attempt_that_was_stopped_count(self, tmp_path, monkeypatch):
        """A clock that ticks once a call: what the first attempt saved is in the second's sum."""
        clock = iter(range(10**6))
        ticking = SimpleNamespace(monotonic=lambda: float(next(clock)))
        monkeypatch.setattr("worker.training.loop.time", ticking)
        with pytest.raises(Stopped):
            train_with(tmp_path, stop_requested=stop_at(12, "preempt"))
        first = next(clock)
        _, run = train_with(tmp_path)
        second = next(clock) - first
        assert run.cost.epochs == 4
        assert first + second - 10 < run.cost.seconds < first + second

    def test_a_cancelled_run_counts_what_it_trained(self, tmp_path):
        run = make_run(tmp_path, stop_requested=stop_at(5, "cancel"))
        with pytest.raises(Stopped):
            train(
                make_network(),
                SPEC,
                run,
                images=concatenated(run, ["train"], SPEC),
                preprocessing=PREPROCESSING,
                batch_loss=hard_loss,
            )
        assert run.cost.epochs == pytest.approx(4 / 3)


class TestHooks:
    def test_another_forward_pass_trains_and_validation_calls_the_network(self, tmp_path):
        network = make_network()
        seen = []

        def forward(pixels_NCHW):
            seen.append(len(pixels_NCHW))
            return network(pixels_NCHW)

        trained, _ = train_with(tmp_path / "a", network=network, options={"forward": forward})
        assert seen == [8] * 12
        assert_same_weights(trained, train_with(tmp_path / "b")[0])

    def test_only_what_the_optimizer_holds_moves(self, tmp_path):
        def of_the_head(network, spec):
            return build_optimizer(network[-1], spec)

        trained, _ = train_with(tmp_path, options={"build_optimizer": of_the_head})
        fresh = make_network()
        assert torch.equal(trained[0].weight, fresh[0].weight)
        assert not torch.equal(trained[-1].weight, fresh[-1].weight)

    def test_a_mask_holds_after_every_step(self, tmp_path):
        network = make_network()
        calls = []

        def mask():
            calls.append(1)
            with torch.no_grad():
                network[0].weight[0] = 0

        trained, _ = train_with(tmp_path, network=network, options={"after_step": mask})
        assert len(calls) == 12
        assert (trained[0].weight[0] == 0).all()
        assert (trained[0].weight[1] != 0).any()


class TestDropout:
    def test_it_is_another_probability_while_training_alone(self, tmp_path):
        """Without dropout the weights are those of a network that has none; the layer keeps its own number."""
        without = make_network()
        without[4] = nn.Dropout(0.0)
        expected, _ = train_with(tmp_path / "a", network=without)
        trained, _ = train_with(tmp_path / "b", SPEC.model_copy(update={"dropout": 0.0}))
        assert_same_weights(expected, trained)
        assert trained[4].p == 0.2
        as_it_is, _ = train_with(tmp_path / "c")
        assert not torch.equal(as_it_is[0].weight, trained[0].weight)


class TestMixup:
    def test_it_trains_other_weights_and_resumes_to_the_bit(self, tmp_path):
        spec = SPEC.model_copy(update={"mixup": 0.5, "train_fraction": 0.8})
        undisturbed, _ = train_with(tmp_path / "calm", spec)
        plain, _ = train_with(tmp_path / "plain", SPEC.model_copy(update={"train_fraction": 0.8}))
        assert not torch.equal(undisturbed[0].weight, plain[0].weight)
        with pytest.raises(Stopped):
            train_with(tmp_path / "job", spec, stop_requested=stop_at(5, "preempt"))
        resumed, _ = train_with(tmp_path / "job", spec, network=make_network(seed=5))
        assert_same_weights(undisturbed, resumed)


def out_of_memory_above(limit: int, network: nn.Module, *, in_backward: bool = False):
    """A forward pass as of a device that holds the activations of `limit` images."""

    def forward(pixels_NCHW):
        logits_NC = network(pixels_NCHW)
        if len(pixels_NCHW) > limit:
            if not in_backward:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            logits_NC.register_hook(_fail)
        return logits_NC

    return forward


def _fail(gradient):
    raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.")


class TestOutOfMemory:
    # A single step at rate 1 without momentum or decay: the weights move by the gradient itself.
    ONE_STEP = Training(
        epochs=1,
        batch_size=24,
        optimizer="sgd",
        momentum=0.0,
        weight_decay=0.0,
        learning_rate=1.0,
        warmup_epochs=0,
        schedule="constant",
        select="last",
    )

    @pytest.mark.parametrize(("limit", "num_parts"), [(16, 2), (9, 4), (5, 8), (2, 16)])
    @pytest.mark.parametrize("mixup", [0.0, 1.0])
    @pytest.mark.parametrize("in_backward", [False, True])
    def test_parts_give_the_whole_batchs_gradient(self, tmp_path, limit, num_parts, mixup, in_backward):
        """Images without labels are spread unevenly over the parts, and partners lie outside of them. 24 + 8 images."""
        spec = self.ONE_STEP.model_copy(update={"mixup": mixup, "batch_size": 32})
        data = MemoryData(train=24, unlabeled=8, val=9)
        whole, calm = train_with(
            tmp_path / "whole", spec, plain_network(), splits=("train", "unlabeled"), data=data
        )
        network = plain_network()
        parted, run = train_with(
            tmp_path / "parts",
            spec,
            network,
            splits=("train", "unlabeled"),
            data=data,
            options={"forward": out_of_memory_above(limit, network, in_backward=in_backward)},
        )
        for left, right in zip(whole.parameters(), parted.parameters(), strict=True):
            torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-5)
        assert calm.reporter.values("train_loss", "train") == pytest.approx(
            run.reporter.values("train_loss", "train")
        )
        warnings = [message for message in run.reporter.logs() if "memory ran out" in message]
        assert f"{num_parts} parts" in warnings[-1]
        assert "batch normalisation" in warnings[-1]

    def test_the_failed_tries_leave_no_trace(self, tmp_path):
        """With batch normalisation and dropout: a run that finds out is the run that knew, to the bit."""
        network = make_network()
        found_out, _ = train_with(
            tmp_path / "a", network=network, options={"forward": out_of_memory_above(4, network)}
        )
        knowing = make_network()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Gradients, "num_parts", 2)
            expected, run = train_with(tmp_path / "b", network=knowing)
        assert not any("memory ran out" in message for message in run.reporter.logs())
        assert_same_weights(found_out, expected)

    def test_the_number_of_parts_survives_a_kill(self, tmp_path):
        network = make_network()
        undisturbed, _ = train_with(
            tmp_path / "calm", network=network, options={"forward": out_of_memory_above(4, network)}
        )
        network = make_network()
        with pytest.raises(Stopped):
            train_with(
                tmp_path / "job",
                network=network,
                options={"forward": out_of_memory_above(4, network)},
                stop_requested=stop_at(5, "preempt"),
            )
        resumed, run = train_with(tmp_path / "job", network=make_network(seed=5))
        assert not any("memory ran out" in message for message in run.reporter.logs())
        assert_same_weights(undisturbed, resumed)

    def test_two_images_at_a_time_that_do_not_fit_end_the_run(self, tmp_path):
        network = make_network()
        with pytest.raises(Problem) as problem:
            train_with(tmp_path, network=network, options={"forward": out_of_memory_above(1, network)})
        assert (problem.value.status, problem.value.code) == (422, "OUT_OF_MEMORY")
        assert "Two images" in problem.value.detail

    def test_other_errors_are_not_tried_again(self, tmp_path):
        calls = []

        def forward(pixels_NCHW):
            calls.append(1)
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        with pytest.raises(RuntimeError, match="mat1"):
            train_with(tmp_path, options={"forward": forward})
        assert len(calls) == 1


def test_the_reports_step_schedule_drops_at_half_and_three_quarters_wherever_it_is_entered():
    """160 epochs at 0.1 (Liu et al.): a rewind to epoch 100 begins at 0.01."""
    spec = Training(epochs=160, learning_rate=0.1, warmup_epochs=0, schedule="step")
    rates = [learning_rate(spec, epoch * 10, 10) for epoch in (0, 79, 80, 100, 119, 120, 159)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001])
