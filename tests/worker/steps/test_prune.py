"""The prune step: amounts, recovery, rules, and going on after a kill."""

import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from app.errors import Problem
from app.spec.steps.finetune import Finetune
from app.spec.steps.prune import Prune
from app.spec.steps.quantize import Quantize
from models import layer_table, network_digest, pack
from models.architectures import create_network
from models.initialise import reinitialise
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run, stop_at
from tests.worker.training.small import SIDE, small_network
from worker.run import Stopped, Teacher
from worker.steps import finetune, prune, quantize
from worker.training.snapshots import FOLDER, save_snapshot

QUICK = {"epochs": 2, "batch_size": 8, "augmentation": "none"}
# The course's curves: the widths that its `width_mult` acts on are those of blocks 3 to 6.
COURSE = {
    "criterion": "bn_gamma_signed",
    "exclude": ["cnn.0.*", "cnn.1.*", "cnn.2.*", "cnn.7.3"],
    "recover": "none",
}


def make_spec(**fields) -> Prune:
    amount = {} if {"units", "target"} & fields.keys() else {"keep_rate": 0.7}
    return Prune.model_validate({"method": "prune", "training": QUICK, **amount, **fields})


def widths_of(network) -> dict[str, int]:
    layers = network.graph["layers"]
    return {
        name: layer["arguments"]["out_channels"]
        for name, layer in layers.items()
        if layer["type"] == "Conv2d"
    }


def num_parameters(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def studentnet():
    """With norms as a training leaves them: all different."""
    network = create_network("course/studentnet", num_classes=11, image_size=16, seed=0)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5, 0.5, generator=generator)
    network.preprocessing = {**PREPROCESSING, "resize": [16, 16]}
    return network.eval()


def prune_studentnet(studentnet, folder, **fields):
    run = make_run(folder, data=MemoryData(11, train=11, val=11))
    return prune.apply(studentnet, make_spec(**COURSE, **fields), run), run


class TestTheCoursesCurves:
    @pytest.mark.parametrize(
        ("keep_rate", "counts"),
        [
            (0.95, [236_066, 217_850, 200_354, 185_091, 171_606]),
            (0.9, [216_518, 183_578, 156_084, 132_858, 114_810]),
            (0.99, [251_796, 247_188, 244_031, 239_172, 236_066]),
        ],
    )
    def test_parameters_after_each_iteration(self, studentnet, tmp_path, keep_rate, counts):
        """Report F1, exactly."""
        network, run = prune_studentnet(studentnet, tmp_path, keep_rate=keep_rate, iterations=5)
        assert [row["parameters"] for row in run.details["iterations"]] == counts
        assert layer_table(network)["parameters"] == counts[-1]

    def test_nineteen_times_095_is_a_quarter(self, studentnet, tmp_path):
        """Report F9: 62,619 of 256,779, the same as the course's own network of that width."""
        network, _ = prune_studentnet(studentnet, tmp_path, keep_rate=0.95, iterations=19)
        assert num_parameters(network) == 62_619
        narrow = create_network(
            "course/studentnet", num_classes=11, image_size=16, seed=0, width_mult=0.95**19
        )
        assert widths_of(narrow) == widths_of(network)

    def test_gentle_steps_and_one_big_one_give_the_same_network(self, studentnet, tmp_path):
        """Report F2: without training in between, gentler steps cannot look better."""
        gentle, _ = prune_studentnet(studentnet, tmp_path / "a", keep_rate=0.99, iterations=5)
        once, _ = prune_studentnet(studentnet, tmp_path / "b", keep_rate=0.95, iterations=1)
        assert network_digest(gentle) == network_digest(once)

    def test_the_channels_with_the_largest_signed_gamma_stay(self, studentnet, tmp_path):
        """Of block 4's batch norm, in the order they had."""
        gammas = studentnet.state_dict()["cnn.4.1.weight"]
        stay = gammas.argsort(descending=True)[:121].sort().values
        network, _ = prune_studentnet(studentnet, tmp_path, keep_rate=0.95)
        assert torch.equal(network.state_dict()["cnn.4.1.weight"], gammas[stay])
        assert torch.equal(
            network.state_dict()["cnn.3.3.bias"], studentnet.state_dict()["cnn.3.3.bias"][stay]
        )

    def test_one_unit_at_a_time(self, studentnet, tmp_path):
        """Report F6: exactly one channel fewer in the whole network at each iteration."""
        run = make_run(tmp_path, data=MemoryData(11, train=11, val=11))
        before = sum(widths_of(studentnet).values())
        fields = COURSE | {"criterion": "l2"}
        network = prune.apply(studentnet, make_spec(**fields, units=1, iterations=3), run)
        assert [row["removed"] for row in run.details["iterations"]] == [1, 1, 1]
        # A channel is made by one pointwise convolution and passes one depthwise.
        assert sum(widths_of(network).values()) == before - 3 * 2


@pytest.mark.parametrize(("measure", "wanted"), [("parameters", 500), ("macs", 20_000)])
def test_a_target_is_met_by_the_first_network_that_is_small_enough(tmp_path, measure, wanted):
    """One unit less removed and it would be too large. Gammas do not depend on what else is removed, so one unit at a time
    goes through the same networks."""
    common = {"criterion": "bn_gamma", "normalise": "none", "ranking": "global", "recover": "none"}
    slowly = make_run(tmp_path / "a")
    prune.apply(small_network(), make_spec(units=1, iterations=20, **common), slowly)
    counts = [row[measure] for row in slowly.details["iterations"]]
    assert counts[0] > wanted > counts[-1]
    at_once = make_run(tmp_path / "b")
    pruned = prune.apply(small_network(), make_spec(target={measure: wanted}, **common), at_once)
    expected = next(count for count in counts if count <= wanted)
    assert layer_table(pruned)[measure] == at_once.details["iterations"][0][measure] == expected


ONE_BY_ONE = {"criterion": "bn_gamma", "normalise": "none", "ranking": "global", "recover": "none"}


def file_bytes(network, run) -> int:
    """Of the file that a quantize step to 8 bits leads to."""
    stored = quantize.apply(network, Quantize(method="quantize"), run)
    return len(pack(stored, preprocessing=network.preprocessing, class_names=run.data.class_names))


def test_a_target_in_bytes_is_that_of_the_file_at_8_bits(tmp_path):
    """Of all networks that one unit at a time goes through, the first whose file is small enough."""
    sizes = []
    for units in range(1, 7):
        run = make_run(tmp_path / str(units))
        sizes.append(file_bytes(prune.apply(small_network(), make_spec(units=units, **ONE_BY_ONE), run), run))
    wanted = sizes[3]
    assert sizes[0] > wanted > sizes[-1]
    run = make_run(tmp_path / "target")
    pruned = prune.apply(small_network(), make_spec(target={"bytes": wanted}, **ONE_BY_ONE), run)
    first = next(size for size in sizes if size <= wanted)
    assert file_bytes(pruned, run) == run.details["iterations"][0]["bytes"] == first
    assert run.details["start"]["bytes"] == file_bytes(small_network(), run)


@pytest.mark.parametrize("recover", ["finetune", "reinit_once"])
def test_after_the_recovery_the_file_still_keeps_to_the_bytes(tmp_path, recover):
    """Also over several iterations, and with new weights."""
    run = make_run(tmp_path)
    wanted = round(0.93 * file_bytes(small_network(), run))
    fields = {"target": {"bytes": wanted}, "iterations": 2, "recover": recover}
    pruned = prune.apply(small_network(), make_spec(**fields), run)
    assert 0.85 * wanted < file_bytes(pruned, run) == run.details["iterations"][-1]["bytes"] <= wanted
    assert run.cost.epochs > 0


def test_a_file_that_is_small_enough_stays_as_it_was_stored(tmp_path):
    """Report A6: pruning is skipped; an 8-bit file is not blown up to 32 bits."""
    run = make_run(tmp_path)
    stored = quantize.apply(small_network(), Quantize(method="quantize"), run)
    size = file_bytes(small_network(), run)
    skipped = prune.apply(stored, make_spec(target={"bytes": size}), run)
    assert same(skipped, stored)
    assert skipped is not stored
    assert skipped.encoded.keys() == stored.encoded.keys()
    assert file_bytes(skipped, run) == size
    assert "bytes at 8 bits is reached" in run.details["stopped"]["reason"]
    assert (run.details["iterations"], run.cost.epochs) == ([], 0)
    cut = prune.apply(stored, make_spec(target={"bytes": size - 50}, recover="none"), make_run(tmp_path))
    assert not cut.encoded


def test_the_smallest_file_is_named_and_can_be_reached(tmp_path):
    with pytest.raises(Problem, match="TARGET_UNREACHABLE") as problem:
        prune.apply(
            small_network(), make_spec(target={"bytes": 100}, recover="none"), make_run(tmp_path / "a")
        )
    smallest = int(problem.value.detail.partition("cannot go below ")[2].split()[0].replace(",", ""))
    for recover in ("none", "reinit_once"):
        run = make_run(tmp_path / recover)
        pruned = prune.apply(small_network(), make_spec(target={"bytes": smallest}, recover=recover), run)
        assert 0.9 * smallest < file_bytes(pruned, run) <= smallest


class TestMaxRemoved:
    @pytest.mark.parametrize("allowed", [0.2, 0.5])
    def test_the_cut_that_would_go_further_is_not_made(self, tmp_path, allowed):
        """Report A6 and F11: of the networks one unit apart, the last that has lost no more."""
        free = make_run(tmp_path / "free")
        prune.apply(small_network(), make_spec(units=1, iterations=20, **ONE_BY_ONE), free)
        start = free.details["start"]["parameters"]
        counts = [row["parameters"] for row in free.details["iterations"]]
        run = make_run(tmp_path / "bound")
        spec = make_spec(units=1, iterations=20, max_removed=allowed, **ONE_BY_ONE)
        pruned = prune.apply(small_network(), spec, run)
        kept = [count for count in counts if count >= (1 - allowed) * start]
        assert [row["parameters"] for row in run.details["iterations"]] == kept
        assert num_parameters(pruned) == kept[-1]
        assert run.details["stopped"]["iteration"] == len(kept) + 1
        assert f"max_removed is {allowed}" in run.details["stopped"]["reason"]

    def test_where_the_first_cut_goes_too_far_nothing_changes(self, tmp_path):
        run = make_run(tmp_path)
        network = small_network()
        assert same(prune.apply(network, make_spec(keep_rate=0.3, max_removed=0.01), run), network)
        assert (run.details["iterations"], run.cost.epochs) == ([], 0)

    def test_training_after_the_last_cut_is_not_forgotten(self, tmp_path):
        """The end comes before the last iteration, and all training was left to it."""
        run = make_run(tmp_path)
        fields = {"keep_rate": 0.85, "iterations": 9, "max_removed": 0.5, "recover_after": "last"}
        prune.apply(small_network(), make_spec(**fields), run)
        *cuts, last = run.details["iterations"]
        assert len(cuts) > 1
        assert {row["epochs"] for row in cuts} == {0}
        assert (last["removed"], last["epochs"]) == (0, 2)
        assert last["parameters"] == cuts[-1]["parameters"]
        assert run.details["stopped"]["iteration"] == len(cuts) + 1

    @pytest.mark.parametrize("target", [{"ratio": 0.8}, {"macs": 20_000}, {"bytes": 3_000}])
    def test_a_target_beyond_it_is_refused_before_anything_is_trained(self, tmp_path, target):
        """And the share that is named is the one that must be allowed."""
        fields = {"target": target, "recover": "none"}
        run = make_run(tmp_path / "a")
        with pytest.raises(Problem, match="TARGET_UNREACHABLE") as problem:
            prune.apply(small_network(), make_spec(max_removed=0.05, **fields), run)
        said = problem.value.detail
        assert "max_removed is 0.05" in said
        share = float(said.partition("removes ")[2].split()[0])
        assert 0.05 < share < 0.9
        enough = make_run(tmp_path / "b")
        prune.apply(small_network(), make_spec(max_removed=share + 1e-4, **fields), enough)
        rows, start = enough.details["iterations"], enough.details["start"]
        assert 1 - rows[-1]["parameters"] / start["parameters"] == pytest.approx(share, abs=1e-4)


def test_a_ratio_spread_over_iterations_comes_down_in_equal_shares(tmp_path):
    network = small_network()
    run = make_run(tmp_path)
    spec = make_spec(target={"ratio": 0.25}, iterations=2, recover="none", ranking="global")
    prune.apply(network, spec, run)
    start, rows = run.details["start"]["parameters"], run.details["iterations"]
    assert (
        rows[0]["parameters"] <= start / 2 < rows[0]["parameters"] + 100
    )  # a unit has at most 97 parameters
    assert rows[1]["parameters"] <= start / 4 < rows[1]["parameters"] + 100


def test_a_network_that_is_small_enough_already_stays(tmp_path):
    network = small_network()
    run = make_run(tmp_path)
    pruned = prune.apply(network, make_spec(target={"parameters": 10**6}), run)
    assert same(pruned, network)
    assert "is reached" in run.details["stopped"]["reason"]
    assert run.details["iterations"] == []
    assert run.cost.epochs == 0


def test_the_floor_holds_in_global_mode(tmp_path):
    """`wide` is made so weak that it would vanish."""
    network = small_network()
    with torch.no_grad():
        for name in ("wide.weight", "wide_norm.weight", "back.weight"):
            network.state_dict()[name].mul_(1e-3)
    spec = make_spec(keep_rate=0.3, ranking="global", min_channels=3, normalise="none", recover="none")
    pruned = prune.apply(network, spec, make_run(tmp_path))
    assert widths_of(pruned)["wide"] == 3
    assert min(widths_of(pruned).values()) >= 3


def test_down_to_one_channel_a_layer_it_still_classifies(tmp_path):
    """Report C1, and the end is said."""
    run = make_run(tmp_path)
    pruned = prune.apply(small_network(), make_spec(keep_rate=0.05, iterations=3, recover="none"), run)
    assert set(widths_of(pruned).values()) == {1}
    assert run.details["stopped"]["iteration"] == 1
    assert "floor" in run.details["stopped"]["reason"]
    assert len(run.details["iterations"]) == 1
    assert pruned(torch.rand(2, 3, SIDE, SIDE)).isfinite().all()


def test_channels_are_rounded_to_a_multiple(tmp_path):
    """6, 10 and 8 channels at 0.8 are 4, 8 and 6: all but the first two are rounded down to 4."""
    pruned = prune.apply(
        small_network(), make_spec(keep_rate=0.8, round_to=4, recover="none"), make_run(tmp_path)
    )
    widths = widths_of(pruned)
    assert (widths["stem"], widths["wide"], widths["deep"]) == (4, 8, 4)


def test_what_is_not_pruned_is_named_before_anything_else(tmp_path):
    run = make_run(tmp_path)
    prune.apply(small_network(), make_spec(exclude=["st*"], recover="none"), run)
    said = run.details["not_prunable"]
    assert said["head"] == "its outputs are the network's"
    assert said["stem"] == said["back"] == "excluded by 'st*'"
    logs = run.reporter.logs()
    assert any("head keeps its channels" in line for line in logs)
    first_metric = next(n for n, message in enumerate(run.reporter.messages) if message["type"] == "metric")
    assert all(message["type"] == "log" for message in run.reporter.messages[:first_metric])


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"target": {"parameters": 50}}, "TARGET_UNREACHABLE", "cannot go below 75"),
        ({"target": {"macs": 100}}, "TARGET_UNREACHABLE", "cannot go below"),
        ({"units": 10, "iterations": 3}, "TARGET_UNREACHABLE", "21 can be removed"),
        ({"exclude": ["nowhere.*"]}, "EXCLUDE_UNKNOWN", "'nowhere.*'"),
        ({"exclude": ["*"]}, "NOTHING_TO_PRUNE", "excluded by"),
        ({"min_channels": 64}, "NOTHING_TO_PRUNE", "min_channels"),
        ({"weights_from_epoch": 1}, "REWIND_IMPOSSIBLE", "no step before this one"),
    ],
)
def test_the_impossible_is_refused_before_anything_is_trained(tmp_path, fields, code, said):
    run = make_run(tmp_path)
    with pytest.raises(Problem) as problem:
        prune.apply(small_network(), make_spec(**fields), run)
    assert (problem.value.status, problem.value.code) == (422, code)
    assert said in problem.value.detail
    assert run.cost.epochs == 0


def test_weights_that_are_not_numbers_are_named(tmp_path):
    network = small_network()
    network.state_dict()["deep.weight"][0, 0] = float("nan")
    with pytest.raises(Problem, match="SCORES_NOT_FINITE"):
        prune.apply(network, make_spec(recover="none"), make_run(tmp_path))


def test_the_smallest_count_that_is_named_can_be_reached(tmp_path):
    """One channel a layer, by hand: stem 28, wide 10, back 2, depthwise 10, deep 2, four norms 8, head 15."""
    pruned = prune.apply(
        small_network(), make_spec(target={"parameters": 75}, recover="none"), make_run(tmp_path)
    )
    assert num_parameters(pruned) == 75


class TestRecovery:
    def test_fine_tuning_moves_the_pruned_weights(self, tmp_path):
        """Report F3: every convolution, also those that lost channels."""
        cut = prune.apply(small_network(), make_spec(recover="none"), make_run(tmp_path / "a"))
        tuned = prune.apply(small_network(), make_spec(recover="finetune"), make_run(tmp_path / "b"))
        for name, before in cut.state_dict().items():
            if name.endswith("weight"):
                assert not torch.equal(before, tuned.state_dict()[name]), name

    def test_a_stale_optimizer_moves_the_running_statistics_alone(self, tmp_path):
        """The course's bug: parameters to the bit as after the cut, running means not."""
        cut = prune.apply(small_network(), make_spec(recover="none"), make_run(tmp_path / "a"))
        stale = prune.apply(
            small_network(),
            make_spec(recover="finetune", compat="stale_optimizer"),
            make_run(tmp_path / "b"),
        )
        for name, before in cut.state_dict().items():
            after = stale.state_dict()[name]
            is_statistic = "running" in name or "tracked" in name
            assert torch.equal(before, after) != is_statistic, name

    @pytest.mark.parametrize(
        ("fields", "rates"),
        [
            ({"recover": "finetune"}, [1e-3, 1e-3, 1e-3, 1e-3]),
            ({"recover": "finetune", "finetune_learning_rate": 2e-4}, [2e-4] * 4),
            # `step` drops to a tenth after half, and again after three quarters of four epochs.
            ({"recover": "lr_rewind"}, [1e-2, 1e-2, 1e-3, 1e-4]),
            ({"recover": "lr_rewind", "schedule_from_epoch": 2}, [1e-3, 1e-4]),
            ({"recover": "reinit_each"}, [1e-2, 1e-2, 1e-3, 1e-4]),
        ],
    )
    def test_the_schedule_knob_decides_the_learning_rate(self, tmp_path, fields, rates):
        run = make_run(tmp_path)
        training = QUICK | {"epochs": 4, "schedule": "step", "learning_rate": 1e-2}
        prune.apply(small_network(), make_spec(training=training, **fields), run)
        assert run.reporter.values("learning_rate") == pytest.approx(rates)
        assert run.details["iterations"][0]["epochs"] == len(rates)

    def test_the_weights_knob_decides_what_training_starts_from(self, tmp_path, monkeypatch):
        """The network at the beginning of its training: cut from the end, new, or cut from the kept epoch."""
        started = {}

        def watch(network, spec, run, plan, *, before):
            started.update({name: tensor.clone() for name, tensor in network.state_dict().items()})
            return network

        monkeypatch.setattr(prune, "retrain", watch)
        cut = prune.apply(small_network(), make_spec(recover="none"), make_run(tmp_path / "cut"))
        prune.apply(small_network(), make_spec(recover="lr_rewind"), make_run(tmp_path / "end"))
        assert all(torch.equal(started[name], tensor) for name, tensor in cut.state_dict().items())

        prune.apply(small_network(), make_spec(recover="reinit_each"), make_run(tmp_path / "new", seed=3))
        reinitialise(cut, 3 + 1)
        assert all(torch.equal(started[name], tensor) for name, tensor in cut.state_dict().items())

        earlier, trained = small_network(seed=5), tmp_path / "trained" / FOLDER
        save_snapshot(trained, 1, earlier)
        run = make_run(tmp_path / "rewound", rewind_dir=trained)
        prune.apply(small_network(), make_spec(recover="weight_rewind", weights_from_epoch=1), run)
        # Chosen by the weights of now, cut from those of then: the largest filters of today.
        scores = small_network().state_dict()["deep_norm.weight"]
        assert started["deep_norm.weight"].shape < scores.shape
        earlier_rows = earlier.state_dict()["deep.weight"].flatten(1)
        for row in started["deep.weight"].flatten(1):
            assert any(torch.isin(row, whole).all() for whole in earlier_rows)

    def test_a_rewound_network_keeps_the_channels_that_were_chosen(self, tmp_path):
        """Snapshot equal to the network itself: rewinding the weights changes nothing."""
        trained = tmp_path / "trained" / FOLDER
        save_snapshot(trained, 2, small_network())
        fields = {"training": QUICK | {"epochs": 3}, "schedule_from_epoch": 1, "iterations": 2}
        rewound = prune.apply(
            small_network(),
            make_spec(weights_from_epoch=2, recover_after="last", **fields),
            make_run(tmp_path / "a", rewind_dir=trained),
        )
        kept = prune.apply(
            small_network(),
            make_spec(weights_from_epoch="end", recover_after="last", **fields),
            make_run(tmp_path / "b"),
        )
        assert same(rewound, kept)

    def test_what_a_training_step_kept_is_where_rewinding_starts(self, tmp_path):
        """Both steps as a job runs them: epoch 1 of three, kept by the first, is found by the second."""
        run = make_run(tmp_path / "step-1", snapshot_epochs=frozenset({1}))
        tune = Finetune.model_validate({"method": "finetune", **QUICK, "epochs": 3, "select": "last"})
        trained = finetune.apply(small_network(), tune, run)
        one_epoch = finetune.apply(
            small_network(), tune.model_copy(update={"epochs": 1}), make_run(tmp_path / "short")
        )
        # Nothing is pruned but the weakest unit, and a rate of nearly 0 moves nothing that can be seen.
        training = QUICK | {"epochs": 2, "optimizer": "sgd", "learning_rate": 1e-12, "weight_decay": 0}
        spec = make_spec(units=1, recover="weight_rewind", weights_from_epoch=1, training=training)
        again = make_run(tmp_path / "step-2", rewind_dir=tmp_path / "step-1" / FOLDER)
        weights = prune.apply(trained, spec, again).state_dict()["head.bias"]
        torch.testing.assert_close(weights, one_epoch.state_dict()["head.bias"])
        assert not torch.allclose(weights, trained.state_dict()["head.bias"])

    def test_weights_of_another_network_are_refused(self, tmp_path):
        trained = tmp_path / "trained" / FOLDER
        save_snapshot(trained, 1, create_network("report/final", num_classes=3, seed=0))
        with pytest.raises(Problem, match="REWIND_IMPOSSIBLE"):
            prune.apply(
                small_network(),
                make_spec(recover="weight_rewind", weights_from_epoch=1),
                make_run(tmp_path / "run", rewind_dir=trained),
            )

    @pytest.mark.parametrize("recover", ["scratch_e", "scratch_b"])
    def test_scratch_b_trains_as_long_as_the_macs_it_saves(self, tmp_path, recover):
        """int(E * MACs before / MACs after), once, after the last cut (Liu et al. 2019)."""
        run = make_run(tmp_path)
        prune.apply(small_network(), make_spec(recover=recover, iterations=2), run)
        first, last = run.details["iterations"]
        expected = int(2 * run.details["start"]["macs"] / last["macs"]) if recover == "scratch_b" else 2
        assert (first["epochs"], last["epochs"]) == (0, expected)
        assert expected > 2 or recover == "scratch_e"

    def test_reinit_once_trains_after_the_last_cut_only(self, tmp_path):
        run = make_run(tmp_path)
        prune.apply(small_network(), make_spec(recover="reinit_once", iterations=2), run)
        assert [row["epochs"] for row in run.details["iterations"]] == [0, 2]

    def test_it_trains_after_the_last_cut_where_a_floor_comes_early(self, tmp_path):
        run = make_run(tmp_path)
        prune.apply(small_network(), make_spec(keep_rate=0.05, recover="reinit_once", iterations=5), run)
        assert [row["epochs"] for row in run.details["iterations"]] == [2]

    def test_soft_labels_take_part(self, tmp_path):
        """alpha 1: the labels say nothing, the teacher all."""
        teacher = small_network(seed=4).requires_grad_(False)
        run = make_run(
            tmp_path / "a",
            teachers=[Teacher("tch_1", teacher, teacher.preprocessing, torch.arange(3))],
        )
        soft = prune.apply(small_network(), make_spec(alpha=1.0), run)
        data = MemoryData()
        data._labels["train"] = data._labels["train"].flip(0)
        other = make_run(tmp_path / "b", teachers=run.teachers, data=data)
        spec = make_spec(alpha=1.0, training=QUICK | {"select": "last"})
        assert same(
            prune.apply(small_network(), spec, other),
            prune.apply(small_network(), spec, make_run(tmp_path / "c", teachers=run.teachers)),
        )
        hard = prune.apply(small_network(), make_spec(alpha=0.0), make_run(tmp_path / "d"))
        assert not same(soft, hard)
        assert run.cost.macs > 0

    def test_costs_are_in_every_row(self, tmp_path):
        """24 images, two epochs, three forward passes' worth each."""
        run = make_run(tmp_path)
        prune.apply(small_network(), make_spec(iterations=2), run)
        for row in run.details["iterations"]:
            assert row["epochs"] == 2
            assert row["trained_macs"] == 24 * 2 * 3 * row["macs"]
            assert row["seconds"] > 0
            assert 0 <= row["accuracy_before"] <= 1
            assert 0 <= row["accuracy_after"] <= 1
        assert run.cost.epochs == 4
        assert run.reporter.values("accuracy_after", "val") == [
            row["accuracy_after"] for row in run.details["iterations"]
        ]


def test_bn_reestimation_gives_the_statistics_of_the_training_images(tmp_path):
    """The stem's: mean and variance of its own output over the batches, by hand."""
    run = make_run(tmp_path)
    spec = make_spec(recover="none", bn_reestimation_batches=3)
    pruned = prune.apply(small_network(), spec, run)
    images = run.data.images("train", pruned.preprocessing).float() / 255
    with torch.no_grad():
        outputs = pruned.get_submodule("stem")((images - 0.5) / 0.25)
    state = pruned.state_dict()
    torch.testing.assert_close(state["stem_norm.running_mean"], outputs.mean(dim=(0, 2, 3)))
    assert state["stem_norm.num_batches_tracked"] == 3
    assert pruned.get_submodule("stem_norm").momentum == 0.1
    cut = prune.apply(small_network(), make_spec(recover="none"), make_run(tmp_path / "b")).state_dict()
    assert all(
        torch.equal(cut[name], state[name]) for name in cut if "running" not in name and "tracked" not in name
    )


class TestSparsity:
    @pytest.mark.parametrize("kind", ["slimming", "group"])
    def test_it_makes_what_it_penalises_smaller(self, tmp_path, kind):
        """The same training with and without: the sum that is penalised ends lower."""

        def measure(sparsity, folder):
            spec = make_spec(
                keep_rate=0.999,
                recover="none",
                sparsity=sparsity,
                training=QUICK
                | {"optimizer": "sgd", "learning_rate": 0.02, "weight_decay": 0, "select": "last"},
            )
            state = prune.apply(small_network(), spec, make_run(tmp_path / folder)).state_dict()
            if kind == "slimming":
                return sum(state[name].abs().sum().item() for name in state if name.endswith("norm.weight"))
            columns, rows = state["back.weight"].flatten(2), state["wide.weight"].flatten(1)
            return sum(
                (rows[c].square().sum() + columns[:, c].square().sum() + state["wide_norm.weight"][c] ** 2)
                .sqrt()
                .item()
                for c in range(len(rows))
            )

        strong = measure({"kind": kind, "weight": 0.1, "epochs": 4}, "strong")
        weak = measure({"kind": kind, "weight": 1e-12, "epochs": 4}, "weak")
        assert strong < 0.97 * weak

    def test_its_cost_counts_and_its_epochs_come_first(self, tmp_path):
        run = make_run(tmp_path)
        prune.apply(small_network(), make_spec(sparsity={"kind": "slimming", "epochs": 3}), run)
        assert run.cost.epochs == 5
        epochs = [m["epoch"] for m in run.reporter.messages if m.get("name") == "train_loss"]
        assert epochs == [1, 2, 3, 4, 5]


class TestTheStopRule:
    def test_it_keeps_the_last_network_that_was_good(self, tmp_path, monkeypatch):
        """Accuracies as if: 0.9 at the start, 0.88 after one cut, 0.7 after two."""
        accuracies = iter([0.9, 0.5, 0.88, 0.4, 0.7])
        monkeypatch.setattr(prune._Pruning, "_accuracy", lambda self: next(accuracies))
        run = make_run(tmp_path / "a")
        kept = prune.apply(small_network(), make_spec(iterations=5, stop_if_accuracy_drops=0.02), run)
        monkeypatch.undo()
        once = prune.apply(small_network(), make_spec(iterations=1), make_run(tmp_path / "b"))
        assert same(kept, once)
        assert run.details["stopped"]["iteration"] == 2
        assert "0.7000" in run.details["stopped"]["reason"]
        assert len(run.details["iterations"]) == 2

    def test_where_the_first_cut_is_too_much_nothing_is_cut(self, tmp_path, monkeypatch):
        accuracies = iter([0.9, 0.5, 0.8])
        monkeypatch.setattr(prune._Pruning, "_accuracy", lambda self: next(accuracies))
        kept = prune.apply(small_network(), make_spec(stop_if_accuracy_drops=0.05), make_run(tmp_path))
        assert same(kept, small_network())

    def test_it_needs_a_val_split(self, tmp_path):
        run = make_run(tmp_path, data=MemoryData(train=16, test=8))
        with pytest.raises(Problem, match="VAL_NEEDED"):
            prune.apply(small_network(), make_spec(stop_if_accuracy_drops=0.1), run)

    def test_without_val_and_rule_there_are_no_accuracies(self, tmp_path):
        run = make_run(tmp_path, data=MemoryData(train=16))
        prune.apply(small_network(), make_spec(), run)
        assert run.details["iterations"][0]["accuracy_after"] is None


RESUMED = {
    "criterion": "taylor",
    "iterations": 3,
    "keep_rate": 0.8,
    "sparsity": {"kind": "group", "epochs": 1},
    "bn_reestimation_batches": 2,
}


def without_times(rows) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


class TestGoingOn:
    @pytest.mark.parametrize("call", [2, 6, 9, 14, 33])
    def test_a_preempted_run_ends_like_an_undisturbed_one(self, tmp_path, call):
        """Stopped in sparse training, between cuts, while scoring, in recovery."""
        calm_run = make_run(tmp_path / "calm")
        calm = prune.apply(small_network(), make_spec(**RESUMED), calm_run)
        with pytest.raises(Stopped) as stopped:
            prune.apply(
                small_network(),
                make_spec(**RESUMED),
                make_run(tmp_path / "job", stop_requested=stop_at(call, "preempt")),
            )
        assert stopped.value.stop == "preempt"
        run = make_run(tmp_path / "job")
        assert same(calm, prune.apply(small_network(), make_spec(**RESUMED), run))
        assert without_times(run.details["iterations"]) == without_times(calm_run.details["iterations"])
        assert run.details["start"] == calm_run.details["start"]
        assert (run.cost.epochs, run.cost.macs) == (calm_run.cost.epochs, calm_run.cost.macs)

    def test_a_finished_run_trains_nothing_again(self, tmp_path):
        first = prune.apply(small_network(), make_spec(iterations=2), make_run(tmp_path))
        run = make_run(tmp_path)
        assert same(first, prune.apply(small_network(), make_spec(iterations=2), run))
        assert run.reporter.values("train_loss", "train") == []
        assert "pruning goes on after iteration 2" in run.reporter.logs()

    def test_another_spec_in_the_same_folder_begins_anew(self, tmp_path):
        prune.apply(small_network(), make_spec(recover="none"), make_run(tmp_path))
        other = prune.apply(small_network(), make_spec(recover="none", keep_rate=0.5), make_run(tmp_path))
        assert widths_of(other)["wide"] == 5

    def test_cancel_hands_over_the_last_whole_iteration(self, tmp_path):
        """Iteration 1 alone takes 7 questions: one before, six steps of training. The tenth is in iteration 2's."""
        with pytest.raises(Stopped) as stopped:
            prune.apply(
                small_network(),
                make_spec(iterations=3),
                make_run(tmp_path / "a", stop_requested=stop_at(10, "cancel")),
            )
        once = prune.apply(small_network(), make_spec(iterations=1), make_run(tmp_path / "b"))
        assert stopped.value.stop == "cancel"
        assert same(stopped.value.model, once)


KILLED = """
import sys, time
from pathlib import Path
import torch
from tests.worker.fakes import make_run
from tests.worker.steps.test_prune import RESUMED, make_spec, small_network
from worker.steps import finetune, prune, quantize

torch.set_num_threads(1)
def slow_down():
    print("asked", flush=True)
    time.sleep(0.02)

run = make_run(Path(sys.argv[1]), stop_requested=slow_down, checkpoint_seconds=0.0)
torch.save(prune.apply(small_network(), make_spec(**RESUMED), run).state_dict(), sys.argv[2])
"""


def test_kill_9_at_any_moment_changes_nothing(tmp_path):
    """A fresh process that is killed after 13 of 39 questions, in the first recovery, then one that may finish."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        undisturbed = prune.apply(small_network(), make_spec(**RESUMED), make_run(tmp_path / "calm"))
    finally:
        torch.set_num_threads(threads)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "job"), str(tmp_path / "weights.pth")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(13):
        assert process.stdout.readline()
    time.sleep(0.03)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(finished.stdout.splitlines()) < 39, "the checkpoints were not used"
    resumed = torch.load(tmp_path / "weights.pth", weights_only=True)
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, resumed[name]), name
