"""Tracing a user's own network: what is kept, and what is refused with a way out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models.graph import left_out
from tests.models.conftest import SmallNet

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def test_functional_dropout_still_drops_in_training(small_module: nn.Module, small: models.Network) -> None:
    """F.dropout(x, p, self.training) becomes a layer: same random numbers in training, none in eval."""
    small_module.train(), small.train()
    torch.manual_seed(5)
    expected = small_module(IMAGES)
    torch.manual_seed(5)
    assert torch.equal(small(IMAGES), expected)
    assert not torch.equal(small(IMAGES), expected)
    small.eval()
    assert torch.equal(small(IMAGES), small(IMAGES))


def test_mode_and_frozen_parameters_are_kept(small_module: nn.Module) -> None:
    small_module.train()
    small_module.stem[1].eval()
    small_module.body.weight.requires_grad_(False)
    network = models.as_network(small_module, IMAGES)
    assert network.training
    assert not network.get_submodule("stem.1").training
    assert not network.get_parameter("body.weight").requires_grad
    assert small_module.training, "tracing must leave the original's mode alone"
    assert not small_module.stem[1].training


def test_the_network_has_weights_of_its_own(small_module: nn.Module, small: models.Network) -> None:
    with torch.no_grad():
        small_module.head.weight.zero_()
    assert bool(small.head.weight.any())


def test_a_copy_is_independent_and_a_network_moves_between_dtypes(small: models.Network) -> None:
    twin = copy.deepcopy(small.eval())
    with torch.no_grad():
        twin.head.weight.zero_()
    assert bool(small.head.weight.any())
    assert small.double()(IMAGES.double()).dtype == torch.float64


def test_a_network_can_be_traced_again(small: models.Network) -> None:
    again = models.as_network(small.eval(), IMAGES)
    assert torch.equal(again(IMAGES), small(IMAGES))
    assert list(again.state_dict()) == list(small.state_dict())


def test_modules_that_only_hold_tensors_keep_their_place() -> None:
    """Order of state_dict and of parameters() is the original's, also around modules without layers."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.rand(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    module = nn.Sequential(Scale(), Scale(), nn.Conv2d(3, 3, 3), Scale(), nn.Flatten(), nn.Linear(588, 2))
    network = models.as_network(module, IMAGES)
    assert list(network.state_dict()) == list(module.state_dict())
    assert [n for n, _ in network.named_parameters()] == [n for n, _ in module.named_parameters()]


def test_shapes_and_indexing_are_traced() -> None:
    class Reshapes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 5)

        def forward(self, x: Tensor, unused: Tensor | None = None) -> Tensor:
            n, c, h, w = x.shape
            torch._assert(h == 16, f"wrong height {h}")
            x = x.view(n, c, -1).reshape(x.size(0), c, h * w // h, h).permute(0, 2, 1, 3)
            x = x[:, ..., None, :].squeeze(3).transpose(1, 2)[:, 0]
            a, b = x.chunk(2, dim=1)
            x = torch.cat([a, b], 1).unsqueeze(1).expand(-1, 2, -1, -1).sum(1)
            x = F.avg_pool2d(x.unsqueeze(1), (16, 1)).flatten(1) / 2 + 1
            return self.head(F.normalize(x.clamp(min=0)))

    module = Reshapes().eval()
    network = models.as_network(module, IMAGES)
    other = torch.rand(5, 3, 16, 16)
    assert torch.equal(network(other), module(other))


def test_a_subclass_that_computes_something_else_is_looked_into() -> None:
    class ScaledConv(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return F.conv2d(
                input, self.weight * 2, self.bias, self.stride, self.padding, self.dilation, self.groups
            )

    module = nn.Sequential(ScaledConv(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    network = models.as_network(module, IMAGES)
    assert torch.equal(network(IMAGES), module(IMAGES))
    assert list(network.state_dict()) == list(module.state_dict())
    assert models.layer_table(network)["macs"] == 4 * 3 * 9 * 14 * 14


def test_layers_that_eval_never_calls_are_left_out() -> None:
    module = SmallNet()
    module.spare = nn.Linear(3, 3)
    graph = models.trace(module, IMAGES)
    assert left_out(module, graph) == ["spare.weight", "spare.bias"]


class _Refused(nn.Module):
    def __init__(self, forward, **parts: nn.Module) -> None:
        super().__init__()
        self.head = nn.Linear(768, 2)
        for name, part in parts.items():
            self.add_module(name, part)
        self._compute = forward

    def forward(self, x: Tensor):
        return self._compute(self, x)


def _shared() -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(768, 768), nn.Linear(768, 768), nn.Linear(768, 2))
    module[2].weight = module[1].weight
    return module


def _hooked() -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    module[1].register_forward_hook(lambda *_: None)
    return module


def _in_place(module: nn.Module, x: Tensor) -> Tensor:
    y = x.flatten(1)
    z = y
    z += 1
    return module.head(y)


REFUSALS = {
    "control flow": (
        _Refused(lambda m, x: m.head(x.flatten(1)) if x.sum() > 0 else x),
        r"line \d+\).*control flow",
    ),
    "dropout that stays on": (
        _Refused(lambda m, x: m.head(F.dropout(x.flatten(1)))),
        "training=self.training",
    ),
    "two outputs": (_Refused(lambda m, x: (m.head(x.flatten(1)), x)), "return the logits alone"),
    "unknown layer": (
        _Refused(lambda m, x: m.lstm(x.flatten(2)), lstm=nn.LSTM(256, 8)),
        "layer 'lstm' .LSTM.",
    ),
    "unknown function": (
        _Refused(lambda m, x: m.head(torch.fft.fft(x.flatten(1)))),
        "function '\\S*fft\\S*' is not in",
    ),
    "unknown method": (_Refused(lambda m, x: m.head(x.flatten(1).cumsum(1))), "method 'cumsum'"),
    "in-place method": (_Refused(lambda m, x: m.head(x.flatten(1).mul_(2))), "in place"),
    "hidden in-place change": (_Refused(_in_place), "other logits"),
    "constant": (_Refused(lambda m, x: m.head(x.flatten(1) + torch.ones(768))), "register_buffer"),
    "attribute": (_Refused(lambda m, x: m.head(x.flatten(1).T)), "attribute 'T'"),
    "option": (
        _Refused(lambda m, x: m.head(m.pool(x)[0].flatten(1)), pool=nn.MaxPool2d(1, return_indices=True)),
        "return_indices",
    ),
    "shared weights": (_shared(), "one parameter"),
    "hooks": (_hooked(), "forward hooks"),
    "parametrized": (
        nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(768, 2))),
        "remove_parametrizations",
    ),
    "fixed batch": (_Refused(lambda m, x: m.head(x.reshape(2, 768))), "any number of images|reshape"),
    "no logits": (nn.Sequential(nn.Conv2d(3, 2, 3)), "one row of logits"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_is_refused_with_a_way_out(case: str) -> None:
    module, message = REFUSALS[case]
    with pytest.raises(models.GraphError, match=message):
        models.as_network(module, IMAGES)
    assert not [name for name in vars(module) if name.startswith("_tensor_constant")]
