"""Scores of channels, against loops written from the papers' formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import as_network
from models.channels import analyse
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run
from tests.worker.training.small import SIDE, small_network
from worker.pruning.criteria import Evidence, lamp, multiplicity, score
from worker.pruning.saliency import gather
from worker.training.batches import TrainingImages


@pytest.fixture(scope="module")
def network():
    return small_network()


def group_of(network, name):
    return analyse(network).group(name)


def images_of(data: MemoryData, batch_size: int = 8) -> TrainingImages:
    return TrainingImages(data, ["train"], batch_size=batch_size, seed=0, device=torch.device("cpu"))


def evidence_of(network, criterion, data=None, **options) -> Evidence:
    data = data or MemoryData(3, train=20)
    return gather(network, criterion, images_of(data), network.preprocessing, **options)


def by_mean(values: list[float]) -> torch.Tensor:
    scores = torch.tensor(values, dtype=torch.float64)
    return scores / scores.mean()


@pytest.mark.parametrize(("criterion", "power"), [("l1", 1), ("l2", 2)])
def test_norms_average_over_all_layers_a_channel_lives_in(network, criterion, power):
    """Channel c of `wide`: its filter, its gamma and the column of `back`, three numbers of which the mean is taken."""
    state = network.state_dict()
    expected = []
    for c in range(10):
        filters = sum(abs(w) ** power for w in state["wide.weight"][c].flatten().tolist())
        gamma = abs(state["wide_norm.weight"][c].item()) ** power
        column = sum(abs(w) ** power for w in state["back.weight"][:, c].flatten().tolist())
        expected.append((filters + gamma + column) / 3)
    found = score(group_of(network, "wide"), criterion, Evidence(network))
    torch.testing.assert_close(found, by_mean(expected))


def test_a_flattened_channel_is_read_in_as_many_columns_as_it_has_pixels(network):
    """`deep` ends as 2x2 pixels: four columns of the linear layer a channel."""
    state = network.state_dict()
    expected = [
        (
            state["deep.weight"][c].square().sum()
            + state["deep_norm.weight"][c].square()
            + state["head.weight"][:, 4 * c : 4 * c + 4].square().sum()
        ).item()
        / 3
        for c in range(8)
    ]
    found = score(group_of(network, "deep"), "l2", Evidence(network), normalise="none")
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_producers_are_the_filters_alone(network):
    """`stem` and `back` make the channels that are added; their norms and readers do not count."""
    state = network.state_dict()
    expected = [
        (state["stem.weight"][c].abs().sum() + state["back.weight"][c].abs().sum()).item() / 2
        for c in range(6)
    ]
    found = score(group_of(network, "stem"), "l1", Evidence(network), coupling="producers", normalise="none")
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_signed_gamma_keeps_its_sign_and_gamma_does_not():
    network = small_network(seed=2)
    with torch.no_grad():
        network.get_submodule("wide_norm").weight[:] = torch.tensor(
            [-2.0, 1.0, 0.5, -0.1, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
        )
    group = group_of(network, "wide")
    signed = score(group, "bn_gamma_signed", Evidence(network))
    assert signed.argsort()[:2].tolist() == [0, 3]
    assert score(group, "bn_gamma", Evidence(network)).argsort()[:2].tolist() == [3, 2]


def test_a_group_without_a_batch_norm_has_no_gamma():
    network = as_network(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        ).eval(),
        torch.rand(1, 3, 8, 8),
    )
    (group,) = analyse(network).groups
    assert score(group, "bn_gamma", Evidence(network)) is None
    assert score(group, "l1", Evidence(network)) is not None


def test_fpgm_is_the_sum_of_distances_to_all_other_filters(network):
    """He et al. 2019, equation 6, pair by pair; for the filters that make the channel."""
    filters = network.state_dict()["wide.weight"].flatten(1).double()
    expected = [sum((filters[i] - filters[j]).norm().item() for j in range(10)) for i in range(10)]
    found = score(
        group_of(network, "wide"), "fpgm", Evidence(network), coupling="producers", normalise="none"
    )
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_lamp_divides_by_all_that_is_as_large():
    """Lee et al. 2021, equation 2, on 1, 4, 9: 1/14, 4/13, 9/9."""
    found = lamp(torch.tensor([9.0, 1.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([1.0, 1 / 14, 4 / 13], dtype=torch.float64))


def test_lamp_of_a_group_starts_from_its_squares(network):
    group = group_of(network, "wide")
    squares = score(group, "l2", Evidence(network), normalise="none").tolist()
    expected = [s / sum(other for other in squares if other >= s) for s in squares]
    found = score(group, "lamp", Evidence(network))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def naive_activations(network, layer, batches):
    """(activation, gradient of the batch's mean loss) for each batch, by running the network node by node."""
    for pixels, labels in batches:
        kept = {}

        def observe(name, value, kept=kept):
            if name == layer:
                value.retain_grad()
                kept["value"] = value

        loss = F.cross_entropy(network.run(pixels, observe), labels)
        loss.backward()
        yield kept["value"].detach(), kept["value"].grad
        network.zero_grad()


@pytest.mark.parametrize("abs_per_example", [False, True])
def test_taylor_is_activation_times_gradient(abs_per_example):
    """Molchanov et al. 2016: mean over pixels and images, summed over the epoch, absolute value, by the layer's L2 norm;
    a loop over images and channels. 20 images in batches of 8: the last one is smaller."""
    network = small_network().requires_grad_(True)
    data = MemoryData(3, train=20)
    images = images_of(data)
    batches = [images.batch(step, "none") for step in range(images.steps_per_epoch)]
    assert [len(batch.labels_N) for batch in batches] == [8, 8, 4]
    sums = [0.0] * 10
    pairs = naive_activations(
        network, "wide", [(images.pixels(batch, network.preprocessing), batch.labels_N) for batch in batches]
    )
    for activation, gradient in pairs:
        for c in range(10):
            of_images = [(activation[n, c] * gradient[n, c]).mean().item() for n in range(len(activation))]
            if abs_per_example:
                of_images = [abs(value) for value in of_images]
            sums[c] += sum(of_images) / len(of_images)
    length = sum(value**2 for value in sums) ** 0.5
    expected = torch.tensor([abs(value) / length for value in sums], dtype=torch.float64)
    evidence = evidence_of(network, "taylor", data, abs_per_example=abs_per_example)
    torch.testing.assert_close(
        score(group_of(network, "wide"), "taylor", evidence), expected, rtol=1e-4, atol=1e-6
    )


def test_taylor_hears_an_activation_that_is_overwritten():
    """A ReLU in place changes the convolution's output after it was made; the products must be of what was there."""

    def build(inplace):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 5, 3), nn.Sigmoid(), nn.Conv2d(5, 4, 3), nn.LeakyReLU(0.3, inplace=inplace)]
        module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        network = as_network(module.eval(), torch.rand(1, 3, SIDE, SIDE))
        network.preprocessing = {**PREPROCESSING, "resize": [SIDE, SIDE]}
        return network

    for layer in ("0", "2"):
        found = [evidence_of(build(inplace), "taylor").activations[layer] for inplace in (True, False)]
        torch.testing.assert_close(*found)


def test_hessian_is_the_mean_of_squared_gradients_of_single_images(network):
    """Of `wide`: the sum over its weights of w^2 * mean over images of (dL/dw)^2, by one backward pass an image."""
    module = small_network().requires_grad_(True)
    data = MemoryData(3, train=6)
    images = images_of(data, batch_size=4)
    squares, count = torch.zeros_like(module.get_submodule("wide").weight), 0
    for step in range(images.steps_per_epoch):
        batch = images.batch(step, "none")
        for pixels, label in zip(images.pixels(batch, module.preprocessing), batch.labels_N, strict=True):
            module.zero_grad()
            F.cross_entropy(module(pixels[None]), label[None]).backward()
            squares += module.get_submodule("wide").weight.grad ** 2
            count += 1
    weight = module.get_submodule("wide").weight.detach()
    expected = (weight.double() ** 2 * (squares / count).double()).flatten(1).sum(1)
    evidence = gather(module, "hessian", images, module.preprocessing)
    found = score(group_of(module, "wide"), "hessian", evidence, coupling="producers", normalise="none")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_hessian_of_a_linear_layer_is_its_closed_form():
    """For softmax regression the gradient of one image is (p - y) x^T, so its square is (p - y)^2 (x^2)^T."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 3))
    network = as_network(module.eval(), torch.rand(1, 3, 4, 4))
    network.preprocessing = {**PREPROCESSING, "resize": [4, 4]}
    images = images_of(MemoryData(3, train=5), batch_size=5)
    batch = images.batch(0, "none")
    x = images.pixels(batch, network.preprocessing).flatten(1)
    error = (network(x.view(5, 3, 4, 4)).softmax(1) - F.one_hot(batch.labels_N, 3)).detach()
    expected = (error.square().T @ x.square()) / 5
    found = gather(network, "hessian", images, network.preprocessing).squared_gradients["1.weight"]
    torch.testing.assert_close(found, expected)


def test_taylor_weight_uses_the_gradient_of_the_mean_loss(network):
    """Summed over batches of different sizes it is that of all images at once."""
    module = small_network().requires_grad_(True)
    data = MemoryData(3, train=20)
    images = images_of(data)
    pixels, labels = zip(
        *[
            (images.pixels(batch, module.preprocessing), batch.labels_N)
            for batch in (images.batch(step, "none") for step in range(3))
        ],
        strict=True,
    )
    F.cross_entropy(module(torch.cat(pixels)), torch.cat(labels)).backward()
    products = {
        name: (module.get_submodule(name).weight * module.get_submodule(name).weight.grad).abs().detach()
        for name in ("wide", "back")
    }
    expected = [
        (products["wide"][c].sum() + products["back"][:, c].sum()).item() / 2 for c in range(10)
    ]  # no gamma: torch-pruning's has none either
    evidence = evidence_of(network, "taylor_weight", data)
    found = score(group_of(network, "wide"), "taylor_weight", evidence)
    torch.testing.assert_close(found, by_mean(expected), rtol=1e-3, atol=1e-5)


def test_random_follows_the_seed_and_the_group(network):
    wide, deep = (group_of(network, name) for name in ("wide", "deep"))
    first = score(wide, "random", Evidence(network, seed=1))
    torch.manual_seed(99)
    assert torch.equal(first, score(wide, "random", Evidence(network, seed=1)))
    assert not torch.equal(first, score(wide, "random", Evidence(network, seed=2)))
    assert not torch.equal(first[:8], score(deep, "random", Evidence(network, seed=1)))


def test_grouped_convolutions_count_an_average_of_their_groups():
    """As torch-pruning: unit j is channel j of both groups, and its score the mean of theirs."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.Conv2d(6, 4, 1, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    network = as_network(module.eval(), torch.rand(1, 3, 8, 8))
    group = group_of(network, "0")
    assert (group.num_units, multiplicity(group)) == (3, 2)
    made, read = (network.state_dict()[f"{name}.weight"].square() for name in (0, 1))
    expected = [
        ((made[j].sum() + made[j + 3].sum()) / 2 + read[:, j].sum()).item() / 2 for j in range(3)
    ]  # the grouped layer has one column for both channels
    found = score(group, "l2", Evidence(network), normalise="none")
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_looking_leaves_the_network_as_it_was(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.requires_grad_(False)
    for criterion in ("taylor", "taylor_weight", "hessian"):
        evidence_of(network, criterion)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_images_without_a_label_are_passed_by(network):
    """Their label, -1, would be no class."""
    data = MemoryData(3, train=16)
    data._labels["train"] = data._labels["train"].clone()
    data._labels["train"][::2] = -1
    run = make_run(None, data=data)
    assert run.data.labels("train")[0] == -1
    gradients = evidence_of(network, "taylor_weight", data).gradients
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert gradients["wide.weight"].abs().sum() > 0
