"""Edits of a graph: what they change, and above all what they leave."""

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from models import GraphError, Network, as_network, encode, load, pack
from models.architectures import create_network
from models.surgery import Piece, batch_norms, fold_batch_norm, replace_layer, replace_layers

from .conftest import PREPROCESSING


def stirred(network: Network, seed: int = 0) -> Network:
    """With statistics, factors and shifts of its batch norms as after a training, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor += torch.rand(tensor.shape, generator=generator) * (1.0 if name.endswith("var") else 0.5)
    return network.eval()


def from_module(module: nn.Module, size: int = 16) -> Network:
    return as_network(module.eval(), torch.rand(1, 3, size, size))


def logits(network: nn.Module, size: int = 16) -> torch.Tensor:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network(images)


class Twice(nn.Module):
    """One convolution called twice, and a tail of everything a fold must leave alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.shared = nn.BatchNorm2d(4)
        self.before_relu = nn.BatchNorm2d(4)
        self.used_twice = nn.Conv2d(4, 4, 1)
        self.after_used_twice = nn.BatchNorm2d(4)
        self.no_statistics = nn.Conv2d(4, 4, 1)
        self.batch_only = nn.BatchNorm2d(4, track_running_stats=False)
        self.tokens = nn.Linear(4, 16)
        self.over_tokens = nn.BatchNorm1d(256)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = self.stem(x)
        x = self.shared(self.conv(x)) + self.shared(self.conv(x + 1))
        x = self.before_relu(torch.relu(x))
        y = self.used_twice(x)
        x = self.after_used_twice(y) + y
        x = self.batch_only(self.no_statistics(x))
        x = self.over_tokens(self.tokens(x.flatten(2).transpose(1, 2)))
        return self.fc(x.mean(1))


class TestReplaceLayer:
    def test_a_chain_stands_where_the_layer_stood(self, small):
        """Named after it, in its place among the tensors; every other tensor is the same to the bit."""
        eye = torch.eye(8).view(8, 8, 1, 1)
        arguments = {"in_channels": 8, "out_channels": 8, "kernel_size": [1, 1], "bias": False}
        same = dict(small.get_submodule("body").state_dict())
        chain = [
            Piece("turn", "Conv2d", arguments, {"weight": eye}),
            Piece("body", "Conv2d", small.graph["layers"]["body"]["arguments"], same),
        ]
        edited = replace_layer(small.eval(), "body", chain)
        names = [name.replace("body.", "body.body.") for name in small.state_dict()]
        names.insert(names.index("body.body.weight"), "body.turn.weight")
        assert list(edited.state_dict()) == names
        for name, tensor in small.state_dict().items():
            assert torch.equal(edited.state_dict()[name.replace("body.", "body.body.")], tensor), name
        assert torch.equal(logits(edited), logits(small))
        assert "body" in [node["name"] for node in edited.graph["nodes"]]

    def test_a_layer_called_twice_becomes_a_chain_called_twice(self):
        network = from_module(Twice())
        double = {"in_channels": 4, "out_channels": 4, "kernel_size": [1, 1], "bias": False}
        chain = [
            Piece("halved", "Conv2d", double, {"weight": 0.5 * torch.eye(4).view(4, 4, 1, 1)}),
            Piece("doubled", "Conv2d", double, {"weight": 2 * torch.eye(4).view(4, 4, 1, 1)}),
        ]
        edited = replace_layer(network, "conv", chain)
        targets = [node.get("target") for node in edited.graph["nodes"]]
        assert targets.count("conv.halved") == targets.count("conv.doubled") == 2
        network.get_submodule("conv").weight.data.zero_()[range(4), range(4), 1, 1] = 1.0
        network.get_submodule("conv").bias.data.zero_()
        assert torch.allclose(logits(edited), logits(network), atol=1e-6)

    def test_the_result_packs_loads_and_trains(self, small, tmp_path):
        """Preprocessing and class names stay; the stored forms of changed tensors do not."""
        small.preprocessing, small.class_names = PREPROCESSING, ["a", "b", "c"]
        small.encoded["body.weight"] = encode(small.state_dict()["body.weight"], {"name": "fp16"})
        arguments = {"in_channels": 8, "out_channels": 8, "kernel_size": [3, 3], "padding": "same"}
        edited = replace_layer(small.eval(), "body", [Piece("new", "Conv2d", arguments, {})])
        assert (edited.preprocessing, edited.class_names, edited.encoded) == (
            PREPROCESSING,
            ["a", "b", "c"],
            {},
        )
        assert edited.num_classes == 3
        assert not edited.training
        path = tmp_path / "network.pt"
        path.write_bytes(pack(edited, preprocessing=PREPROCESSING, class_names=["a", "b", "c"]))
        assert torch.equal(logits(load(path)), logits(edited))
        edited.train()(torch.rand(2, 3, 16, 16)).sum().backward()
        assert all(parameter.grad is not None for parameter in edited.parameters())

    def test_the_old_network_is_not_touched(self, small):
        before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
        edited = fold_batch_norm(small.eval())
        for tensor in edited.state_dict().values():
            tensor.zero_()
        assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
        assert "stem.1" in small.graph["layers"]

    def test_a_chain_that_does_not_fit_is_refused(self, small):
        """The graph is run on shapes before anything is made."""
        arguments = {"in_channels": 8, "out_channels": 5, "kernel_size": [1, 1]}
        with pytest.raises(GraphError, match="mul"):
            replace_layer(small, "body", [Piece("thin", "Conv2d", arguments, {})])

    def test_a_bypassed_node_takes_its_layer_along(self, small):
        """Its users get what it got; a layer that is still called elsewhere stays."""
        edited = replace_layers(small, {}, ["stem_2"])
        assert "stem.2" not in edited.graph["layers"]
        assert not any(node.get("target") == "stem.2" for node in edited.graph["nodes"])
        residual = create_network("cifar/resnet20", num_classes=3, seed=0)
        layer = next(
            name
            for name, entry in residual.graph["layers"].items()
            if entry["type"] == "ReLU" and sum(n.get("target") == name for n in residual.graph["nodes"]) > 1
        )
        node = next(n["name"] for n in residual.graph["nodes"] if n.get("target") == layer)
        assert layer in replace_layers(residual, {}, [node]).graph["layers"]


class TestFoldBatchNorm:
    @pytest.mark.parametrize("name", ["report/plain", "cifar/resnet20", "mobilenet_v3_small"])
    def test_the_outputs_stay(self, name):
        """To 1e-4 of their size, with statistics that are far from 0 and 1."""
        network = stirred(create_network(name, num_classes=5, image_size=32, seed=0))
        folded = fold_batch_norm(network)
        before, after = logits(network, 32), logits(folded, 32)
        assert (before - after).abs().max() <= 1e-4 * before.abs().max()
        assert sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in network.parameters())

    def test_it_computes_what_torch_computes(self):
        """torch.nn.utils.fusion, weight by weight, for a convolution without bias and a linear layer with one."""
        module = nn.Sequential(
            nn.Conv2d(3, 6, 3, groups=3, bias=False),
            nn.BatchNorm2d(6, eps=0.1, affine=False),
            nn.Flatten(),
            nn.Linear(6 * 14 * 14, 3),
            nn.BatchNorm1d(3),
        )
        network = stirred(from_module(module))
        module.load_state_dict(network.state_dict())
        folded = fold_batch_norm(network)
        convolution = fuse_conv_bn_eval(module.eval()[0], module[1])
        linear = fuse_linear_bn_eval(module[3], module[4])
        expected = {"0": convolution, "3": linear}
        assert list(folded.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias"]
        for name, layer in expected.items():
            for key, tensor in layer.state_dict().items():
                torch.testing.assert_close(folded.state_dict()[f"{name}.{key}"], tensor)

    def test_what_cannot_be_folded_says_why(self):
        network = stirred(from_module(Twice()))
        reasons = {norm.name: norm.reason for norm in batch_norms(network) if norm.into is None}
        assert "called 2 times" in reasons["shared"]
        assert "follows 'relu'" in reasons["before_relu"]
        assert "'used_twice' is used elsewhere" in reasons["after_used_twice"]
        assert "no running statistics" in reasons["batch_only"]
        assert "another dimension" in reasons["over_tokens"]
        assert len(reasons) == 5
        assert torch.equal(logits(fold_batch_norm(network)), logits(network))
