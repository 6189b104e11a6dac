"""Every word of the vocabulary, traced from ordinary PyTorch, computes the same in both modes."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import models
from models.load_artifact import FUNCTIONS, LAYERS

IMAGES = torch.randn(3, 8, 6, 6, generator=torch.Generator().manual_seed(0))

MODULES: dict[str, list[nn.Module]] = {
    "Conv2d": [
        nn.Conv2d(8, 4, (3, 1), stride=2, padding="valid", dilation=1, groups=2, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
    ],
    "Linear": [nn.Linear(6, 3), nn.Linear(6, 3, bias=False)],
    "MultiheadAttention": [],  # called with three tensors: test_attention below
    "BatchNorm1d": [],  # takes vectors: test_vectors below
    "BatchNorm2d": [nn.BatchNorm2d(8, eps=1e-3, momentum=None), nn.BatchNorm2d(8, affine=False)],
    "InstanceNorm2d": [nn.InstanceNorm2d(8, affine=True), nn.InstanceNorm2d(8)],
    "GroupNorm": [nn.GroupNorm(4, 8), nn.GroupNorm(2, 8, affine=False)],
    "LayerNorm": [
        nn.LayerNorm([6, 6]),
        nn.LayerNorm(6, bias=False),
        nn.LayerNorm(6, elementwise_affine=False),
    ],
    "LayerNorm2d": [torchvision.models.convnext.LayerNorm2d(8, eps=1e-6)],
    "LocalResponseNorm": [nn.LocalResponseNorm(3, alpha=0.1)],
    "MaxPool2d": [nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), nn.MaxPool2d((2, 1))],
    "AvgPool2d": [nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False, divisor_override=7)],
    "AdaptiveAvgPool2d": [nn.AdaptiveAvgPool2d((2, None)), nn.AdaptiveAvgPool2d(1)],
    "AdaptiveMaxPool2d": [nn.AdaptiveMaxPool2d(2)],
    "ReLU": [nn.ReLU(), nn.ReLU(inplace=True)],
    "ReLU6": [nn.ReLU6()],
    "LeakyReLU": [nn.LeakyReLU(0.2)],
    "PReLU": [nn.PReLU(8)],
    "ELU": [nn.ELU(0.7)],
    "GELU": [nn.GELU(), nn.GELU("tanh")],
    "SiLU": [nn.SiLU()],
    "Mish": [nn.Mish()],
    "Sigmoid": [nn.Sigmoid()],
    "Tanh": [nn.Tanh()],
    "Hardswish": [nn.Hardswish()],
    "Hardsigmoid": [nn.Hardsigmoid()],
    "Hardtanh": [nn.Hardtanh(-0.5, 2.0)],
    "Softmax": [nn.Softmax(dim=1)],
    "LogSoftmax": [nn.LogSoftmax(dim=-1)],
    "Dropout": [nn.Dropout(0.3)],
    "Dropout2d": [nn.Dropout2d(0.3)],
    "StochasticDepth": [torchvision.ops.StochasticDepth(0.4, mode) for mode in ("row", "batch")],
    "Flatten": [nn.Flatten(2, 3)],
    "ZeroPad2d": [nn.ZeroPad2d((1, 0, 2, -1))],
    "ReflectionPad2d": [nn.ReflectionPad2d(2)],
    "ChannelShuffle": [nn.ChannelShuffle(4)],
    "Identity": [nn.Identity()],
    "Scope": [],  # never called: tests of trace
}

WEIGHT = torch.randn(6, 6)
CALLS: dict[str, list[Callable[[Tensor], Tensor]]] = {
    "add": [lambda x: x + 1, lambda x: torch.add(x, x), lambda x: x.add(other=2.0)],
    "sub": [lambda x: 1 - x, lambda x: x.sub(x.relu())],
    "mul": [lambda x: 2 * x * x.sigmoid()],
    "truediv": [lambda x: x / 3, lambda x: torch.div(x, 2)],
    "floordiv": [lambda x: x.reshape(x.size(0), x.size(1) // 2, -1)],
    "pow": [lambda x: x**2, lambda x: x.pow(3), lambda x: x * x.size(-1) ** -0.5],
    "neg": [lambda x: -x],
    "matmul": [lambda x: x @ x, lambda x: torch.bmm(x[:, 0], x[:, 1])],
    "getitem": [
        lambda x: x[:, 1:6:2, ..., None],
        lambda x: x[..., 0],
        lambda x: x.amax((2, 3)).reshape(x.shape[:2]),
    ],
    "size": [lambda x: x * x.size(1) + x.shape[2]],
    "cat": [lambda x: torch.cat([x, x], 1), lambda x: torch.cat(x.chunk(2, dim=1), dim=-1)],
    "stack": [lambda x: torch.stack((x, x), dim=2)],
    "chunk": [lambda x: x.chunk(4, 1)[3]],
    "split": [lambda x: x.split([2, 6], dim=1)[1], lambda x: torch.split(x, 4, dim=1)[0]],
    "index_select": [],  # not traced, pruning writes it: test_channels.py
    "unbind": [lambda x: x.unbind(1)[5]],
    "flatten": [lambda x: x.flatten(2), lambda x: torch.flatten(x, start_dim=1, end_dim=2)],
    "view": [lambda x: x.view(x.size(0), -1), lambda x: x.view(x.shape), lambda x: x.view((-1, 8, 36))],
    "reshape": [lambda x: x.reshape(-1, 4, 72), lambda x: torch.reshape(x, (x.shape[0], 288))],
    "expand": [lambda x: x.unsqueeze(2).expand(-1, -1, 2, -1, -1)],
    "permute": [lambda x: x.permute(0, 2, 3, 1), lambda x: torch.permute(x, (0, 3, 1, 2))],
    "transpose": [lambda x: x.transpose(1, 3), lambda x: torch.swapaxes(x, 2, 3)],
    "squeeze": [lambda x: x.unsqueeze(1).squeeze(1)],
    "unsqueeze": [lambda x: torch.unsqueeze(x, 2)],
    "contiguous": [lambda x: x.permute(0, 2, 3, 1).contiguous()],
    "mean": [lambda x: x.mean([2, 3]), lambda x: torch.mean(x, dim=1, keepdim=True)],
    "sum": [lambda x: x.sum(dim=-1)],
    "amax": [lambda x: x.amax((2, 3))],
    "clamp": [lambda x: x.clamp(-0.5, 0.5), lambda x: torch.clip(x, min=0.1)],
    "relu": [lambda x: F.relu(x * 1, inplace=True), torch.relu, lambda x: x.relu()],
    "relu6": [F.relu6],
    "leaky_relu": [lambda x: F.leaky_relu(x, 0.3)],
    "elu": [lambda x: F.elu(x, alpha=0.5)],
    "gelu": [lambda x: F.gelu(x, approximate="tanh")],
    "silu": [F.silu],
    "mish": [F.mish],
    "sigmoid": [torch.sigmoid],
    "tanh": [torch.tanh],
    "softplus": [lambda x: F.softplus(x, beta=2)],
    "hardswish": [F.hardswish],
    "hardsigmoid": [F.hardsigmoid],
    "softmax": [lambda x: F.softmax(x, dim=1), lambda x: x.softmax(-1), lambda x: torch.softmax(x, 2)],
    "log_softmax": [lambda x: F.log_softmax(x, dim=1)],
    "normalize": [lambda x: F.normalize(x, dim=2)],
    "pad": [lambda x: F.pad(x, (1, 0, 0, 2), value=0.5), lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")],
    "max_pool2d": [
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.max_pool2d(x, kernel_size=3, stride=2, padding=1),
    ],
    "avg_pool2d": [lambda x: F.avg_pool2d(x, 2, stride=1)],
    "adaptive_avg_pool2d": [lambda x: F.adaptive_avg_pool2d(x, (1, 2))],
    "adaptive_max_pool2d": [lambda x: F.adaptive_max_pool2d(x, 2)],
    "linear": [],  # with a tensor of the module: Weighted below
    "conv2d": [],
    "layer_norm": [lambda x: F.layer_norm(x, (6,), eps=1e-3)],
}


class Calls(nn.Module):
    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x).flatten(1)


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(5, 6))
        self.kernel = nn.Parameter(torch.randn(4, 4, 3, 3))
        self.register_buffer("bias", torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel / self.kernel.shape[0], bias=self.bias, stride=1, padding=1, groups=2)
        return F.linear(x, self.matrix).flatten(1)


def _is_the_same(module: nn.Module, images: Tensor = IMAGES) -> models.Network:
    network = models.as_network(module, images)
    for mode in (False, True):
        module.train(mode), network.train(mode)
        torch.manual_seed(1)
        expected = module(images.clone())
        torch.manual_seed(1)
        assert torch.equal(network(images.clone()), expected)
    return network


def test_every_word_has_a_test() -> None:
    assert MODULES.keys() == LAYERS.keys()
    assert CALLS.keys() == FUNCTIONS.keys()


@pytest.mark.parametrize("name", [name for name in LAYERS if MODULES[name]])
def test_a_layer_is_itself_again(name: str) -> None:
    for module in MODULES[name]:
        network = _is_the_same(nn.Sequential(module, nn.Flatten()))
        assert network.graph["layers"]["0"]["type"] == name
        # Their texts name every argument that was given.
        assert repr(network.get_submodule("0")).partition("(")[2] == repr(module).partition("(")[
            2
        ] or name == ("StochasticDepth")


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if CALLS[name]])
def test_a_function_is_itself_again(name: str) -> None:
    for call in CALLS[name]:
        network = _is_the_same(Calls(call))
        assert name in [node.get("target") for node in network.graph["nodes"]]


def test_functions_take_tensors_of_the_module() -> None:
    network = _is_the_same(Weighted())
    assert list(network.state_dict()) == ["matrix", "kernel", "bias"]
    assert {"linear", "conv2d"} <= {node.get("target") for node in network.graph["nodes"]}


def test_vectors_can_be_normalised() -> None:
    network = _is_the_same(nn.Sequential(nn.Flatten(), nn.Linear(288, 4), nn.BatchNorm1d(4)))
    assert network.graph["layers"]["2"]["type"] == "BatchNorm1d"


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_takes_three_tensors(batch_first: bool) -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(
                8, 2, dropout=0.2, bias=batch_first, batch_first=batch_first
            )

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(2).permute(0, 2, 1) if batch_first else x.flatten(2).permute(2, 0, 1)
            x, _ = self.attention(x, x, x, need_weights=False)
            return x.mean(1 if batch_first else 0)

    _is_the_same(Attends())
