"""Every built-in architecture builds, runs, and has the size its source says."""

import pytest
import torch
from torch import nn

from models.architectures import ARCHITECTURES, UnknownArchitectureError, create, create_skeleton

# The report's own figures at 11 classes: (parameters, multiply-adds at the default side).
REPORTED = {
    "report/final": (120_859, 41_888_768),
    "report/plain": (242_203, 42_009_984),
    "report/separable": (161_819, 27_587_968),
    "report/separable-matched": (239_899, 28_429_696),
    "report/groups-half": (163_259, 27_846_016),
    "report/groups-quarter": (166_139, 28_362_112),
    "report/groups-eighth": (171_899, 29_394_304),
    "report/groups-1": (243_323, 41_485_696),
    "course/studentnet": (256_779, 118_393_600),
}
OURS = [name for name, architecture in ARCHITECTURES.items() if "torchvision" not in architecture.family]
# Depth adds time to a test, not a case: their sizes are checked in test_cifar_resnet.
OURS_BUT_THE_DEEP = [
    name for name in OURS if name not in {f"cifar/resnet{depth}" for depth in (32, 44, 56, 110)}
]


def count_macs(model: nn.Module, image_size: int) -> int:
    """Multiply-adds of convolutions and linear layers for one image, by forward hooks.

    Each output value of a convolution costs as many as one filter has weights (weight[0] is already
    C_in / groups wide). Attention over L tokens of E numbers costs four E x E projections a token, and two
    L x L x E products.
    """
    total = 0

    def add(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()  # type: ignore[operator,index]

    def add_attention(module: nn.Module, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        nonlocal total
        _, tokens, width = inputs[0].shape
        total += tokens * 4 * width * width + 2 * tokens * tokens * width

    hooks = [
        m.register_forward_hook(add_attention)
        for m in model.modules()
        if isinstance(m, nn.MultiheadAttention)
    ]
    hooks += [m.register_forward_hook(add) for m in model.modules() if type(m) in (nn.Conv2d, nn.Linear)]
    model.eval()(torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device))
    for hook in hooks:
        hook.remove()
    return total


def settings(model: nn.Module) -> tuple[str, list[float]]:
    """The layers with their arguments, and the probabilities that some do not show."""
    return repr(model), [module.p for module in model.modules() if hasattr(module, "p")]


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", REPORTED)
def test_report_and_course_networks_have_the_published_sizes(name: str) -> None:
    """Parameters and multiply-adds equal the report's table to the unit."""
    model = create_skeleton(name, num_classes=11)
    assert (num_parameters(model), count_macs(model, ARCHITECTURES[name].image_size)) == REPORTED[name]


@pytest.mark.parametrize("name", [*OURS_BUT_THE_DEEP, "mobilenet_v3_small", "regnet_x_400mf"])
def test_a_skeleton_has_the_shapes_of_the_network(name: str) -> None:
    """Same keys, same shapes, nothing in memory."""
    skeleton = create_skeleton(name, num_classes=3).state_dict()
    assert {key: value.shape for key, value in skeleton.items()} == {
        key: value.shape for key, value in create(name, num_classes=3).state_dict().items()
    }
    assert all(value.is_meta for value in skeleton.values())


def test_report_final_rows_add_up_as_the_report_lists_them() -> None:
    """The listed convolutions and the linear layer have 120,283 parameters; the seven batch norms add 576."""
    model = create("report/final", num_classes=11)
    norms = sum(num_parameters(m) for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert (num_parameters(model) - norms, norms) == (120_283, 576)


@pytest.mark.parametrize("image_size", [16, 31, 48, 100])
def test_the_flattened_size_follows_the_image_size(image_size: int) -> None:
    """A report network takes any side of at least 16, also one that poolings round down."""
    for name in ("report/final", "report/separable-matched"):
        model = create(name, num_classes=5, image_size=image_size).eval()
        assert model(torch.zeros(2, 3, image_size, image_size)).shape == (2, 5)


def test_keep_first_seven_is_the_plain_network() -> None:
    """Keeping every convolution plain leaves nothing to split."""
    split = create("report/groups-half", num_classes=11, keep_first=7)
    assert [p.shape for p in split.parameters()] == [
        p.shape for p in create("report/plain", num_classes=11).parameters()
    ]


def test_one_group_more_or_less_is_the_named_network() -> None:
    """`report/groups` with one group is `report/groups-1`."""
    one = create_skeleton("report/groups", num_classes=11, groups=1)
    assert num_parameters(one) == REPORTED["report/groups-1"][0]


@pytest.mark.parametrize("name", OURS_BUT_THE_DEEP)
def test_it_learns_and_keeps_its_shape(name: str) -> None:
    """Logits are [N, classes] without NaN, and every parameter gets a finite gradient."""
    smallest = max(ARCHITECTURES[name].minimum_image_size, 32)
    torch.manual_seed(0)
    model = create(name, num_classes=7, image_size=smallest)
    logits = model(torch.randn(4, 3, smallest, smallest))
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 6])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert sum(parameter.grad.abs().sum() for parameter in model.parameters()) > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("name", OURS_BUT_THE_DEEP)
def test_every_option_reaches_the_network(name: str) -> None:
    """Another value changes the network's layers or their settings: no option is silently ignored."""
    default = settings(create(name, num_classes=3))
    others = {"shortcut": "conv", "width_mult": 0.5, "dropout": 0.25, "drop_connect": 0.1}
    for option in ARCHITECTURES[name].options:
        other = others.get(option, 1)
        assert settings(create(name, num_classes=3, **{option: other})) != default, option


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "report/fnal", "num_classes": 11}, "did you mean 'report/final'"),
        ({"name": "zzz", "num_classes": 11}, "known are report/final"),
        ({"name": "report/final", "num_classes": 0}, "num_classes is 0"),
        ({"name": "report/final", "num_classes": 11, "image_size": 15}, "give at least 16"),
        ({"name": "alexnet", "num_classes": 11, "image_size": 62}, "give at least 63"),
        (
            {"name": "report/final", "num_classes": 11, "depth": 3},
            "has no option 'depth': its options are dropout",
        ),
        ({"name": "resnet18", "num_classes": 11, "depth": 3}, "its options are none"),
        ({"name": "report/final", "num_classes": 11, "dropout": 1.5}, "takes a number from 0.0 to 0.9"),
        (
            {"name": "report/final", "num_classes": 11, "dropout": float("nan")},
            "takes a number from 0.0 to 0.9",
        ),
        ({"name": "report/groups", "num_classes": 11, "groups": True}, "takes an integer from 1 to 64"),
        ({"name": "report/groups", "num_classes": 11, "groups": 2.0}, "takes an integer from 1 to 64"),
        (
            {"name": "report/groups", "num_classes": 11, "groups": 5},
            "groups must divide in and out channels: 5",
        ),
        ({"name": "report/groups-half", "num_classes": 11, "keep_first": 0}, "in/2 of 3 channels"),
        ({"name": "cifar/resnet20", "num_classes": 10, "shortcut": "b"}, "takes one of 'pad', 'conv'"),
        ({"name": "course/studentnet", "num_classes": 11, "width_mult": 0.002}, "at least 1/128"),
    ],
)
def test_a_wrong_request_is_refused_with_the_rule_and_the_way_out(
    arguments: dict[str, object], words: str
) -> None:
    """The sentence names what was wrong and what would be right."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refusal:
        create(**arguments)  # type: ignore[arg-type]
    assert words in str(refusal.value)


def test_an_unknown_name_is_a_lookup_error_too() -> None:
    """Callers may tell a wrong name from a wrong option."""
    with pytest.raises(UnknownArchitectureError):
        create("resnet19", num_classes=2)
