"""State dicts that are whole and harmless, and no teacher of the architecture that was named."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from models.architectures import create
from tests.corpus.case import Case
from tests.corpus.checkpoints.calls import saved
from tests.corpus.checkpoints.verdicts import refused
from tests.worker import tiny

State = dict[str, Tensor]


def cases() -> Iterator[Case]:
    yield from _not_finite()
    yield from _types()
    yield from _keys()
    yield from _shapes()
    yield from _requests()


@cache
def _good() -> State:
    torch.manual_seed(0)
    return create(tiny.TEACHER, num_classes=2, image_size=tiny.SIDE).state_dict()


def changed(change: Callable[[State], Any] = lambda _: None) -> bytes:
    """A good teacher, changed."""
    state = {name: tensor.clone() for name, tensor in _good().items()}
    change(state)
    return saved(state)


def _with(name: str, value: Callable[[Tensor], Tensor]) -> Callable[[], bytes]:
    return lambda: changed(lambda state: state.__setitem__(name, value(state[name])))


def _everywhere(value: Callable[[Tensor], Tensor]) -> Callable[[], bytes]:
    def change(state: State) -> None:
        for name, tensor in state.items():
            state[name] = value(tensor)

    return lambda: changed(change)


def _filled(number: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: torch.full_like(tensor, number)


def _one(number: float) -> Callable[[Tensor], Tensor]:
    def set_last(tensor: Tensor) -> Tensor:
        tensor.view(-1)[-1] = number
        return tensor

    return set_last


def _not_finite() -> Iterator[Case]:
    nan, inf = float("nan"), float("inf")
    broken = {
        "one NaN in a weight": ("features.conv1.weight", _one(nan)),
        "one infinity in the head": ("head.fc.bias", _one(inf)),
        "minus infinity in a bias": ("features.conv7.bias", _one(-inf)),
        "an infinite running_mean": ("features.bn1.running_mean", _one(inf)),
        "a NaN running_mean": ("features.bn7.running_mean", _filled(nan)),
        "an infinite running_var": ("features.bn1.running_var", _one(inf)),
        "a NaN running_var": ("features.bn3.running_var", _one(nan)),
        "a negative running_var": ("features.bn2.running_var", _one(-1.0)),
        "a slightly negative running_var": ("features.bn2.running_var", _filled(-1e-3)),
        "weights so large that the outputs overflow": ("features.conv1.weight", _filled(3e38)),
        "a double beyond single precision": (
            "head.fc.weight",
            lambda t: torch.full_like(t, 1e300, dtype=torch.float64),
        ),
    }
    for what, (name, value) in broken.items():
        yield refused(f"meaning: {what}", _with(name, value), "NOT_FINITE")
    yield refused(
        "meaning: NaN everywhere",
        _everywhere(lambda t: t * nan if t.is_floating_point() else t),
        "NOT_FINITE",
    )
    yield refused(
        "meaning: NaN in half precision",
        _with("features.conv1.weight", lambda t: _one(nan)(t.half())),
        "NOT_FINITE",
    )


def _types() -> Iterator[Case]:
    weight = "features.conv1.weight"
    for what, convert in {
        "int64": Tensor.long,
        "int32": Tensor.int,
        "int8": Tensor.char,
        "uint8": Tensor.byte,
        "bool": Tensor.bool,
    }.items():
        yield refused(f"meaning: a weight in {what}", _with(weight, convert), "DTYPE_MISMATCH")
    for what, kind in {
        "complex64": torch.complex64,
        "float8_e4m3fn": torch.float8_e4m3fn,
        "float8_e5m2": torch.float8_e5m2,
    }.items():
        yield refused(
            f"meaning: a weight in {what}", _with(weight, lambda t, kind=kind: t.to(kind)), "DTYPE_MISMATCH"
        )
    yield refused(
        "meaning: all in int8",
        _everywhere(lambda t: t.char() if t.is_floating_point() else t),
        "DTYPE_MISMATCH",
    )
    yield refused(
        "meaning: a counter in bool", _with("features.bn1.num_batches_tracked", Tensor.bool), "DTYPE_MISMATCH"
    )
    yield refused(
        "meaning: running_var in int64", _with("features.bn1.running_var", Tensor.long), "DTYPE_MISMATCH"
    )


def _keys() -> Iterator[Case]:
    def renamed(old: str, new: str) -> Callable[[], bytes]:
        return lambda: changed(lambda state: state.__setitem__(new, state.pop(old)))

    yield refused(
        "meaning: a tensor too few", lambda: changed(lambda s: s.pop("head.fc.bias")), "KEYS_MISMATCH"
    )
    yield refused(
        "meaning: a tensor too many",
        lambda: changed(lambda s: s.__setitem__("extra", torch.zeros(1))),
        "KEYS_MISMATCH",
    )
    yield refused(
        "meaning: a tensor by another name", renamed("head.fc.bias", "head.fc.offset"), "KEYS_MISMATCH"
    )
    yield refused("meaning: a name in capitals", renamed("head.fc.bias", "HEAD.FC.BIAS"), "KEYS_MISMATCH")
    yield refused("meaning: a dunder for a name", renamed("head.fc.bias", "__class__"), "KEYS_MISMATCH")
    yield refused("meaning: a name of 512 letters", renamed("head.fc.bias", "w" * 512), "KEYS_MISMATCH")
    yield refused("meaning: one tensor", lambda: saved({"w": torch.zeros(4)}), "KEYS_MISMATCH")
    yield refused(
        "meaning: a few of many with DataParallel's prefix",
        renamed("features.conv1.weight", "module.features.conv1.weight"),
        "KEYS_MISMATCH",
    )
    yield refused(
        "meaning: 3,000 tensors too many",
        lambda: changed(lambda s: s.update({f"x{i}": torch.zeros(1) for i in range(3_000)})),
        "KEYS_MISMATCH",
    )
    yield refused(
        "meaning: a key_map that gives two tensors one name",
        changed,
        "KEYS_COLLIDE",
        key_map={"features.conv1.": "x.", "features.bn1.": "x."},
    )


def _shapes() -> Iterator[Case]:
    weight = "features.conv2.weight"
    for what, value in {
        "a larger weight": lambda t: torch.zeros(17, 16, 3, 3),
        "a smaller kernel": lambda t: torch.zeros(16, 16, 1, 1),
        "a flat weight": lambda t: t.flatten().clone(),
        "an empty weight": lambda t: torch.zeros(0, 16, 3, 3),
        "a weight with a side more": lambda t: t[None].clone(),
        "a scalar weight": lambda t: torch.tensor(1.0),
    }.items():
        yield refused(f"meaning: {what}", _with(weight, value), "SHAPE_MISMATCH")
    yield refused(
        "meaning: a transposed weight",
        _with("features.conv3.weight", lambda t: t.transpose(0, 1)),
        "SHAPE_MISMATCH",
    )
    yield refused(
        "meaning: a flat head", _with("head.fc.weight", lambda t: t.flatten().clone()), "SHAPE_MISMATCH"
    )
    yield refused(
        "meaning: a head without outputs",
        _with("head.fc.weight", lambda t: t[:0].clone()),
        "ARCHITECTURE_IMPOSSIBLE",
    )
    yield refused(
        "meaning: a counter with a side",
        _with("features.bn1.num_batches_tracked", lambda t: t[None].clone()),
        "SHAPE_MISMATCH",
    )
    yield refused("meaning: all tensors flat", _everywhere(lambda t: t.flatten().clone()), "SHAPE_MISMATCH")


def _requests() -> Iterator[Case]:
    """The same good file, with a request that does not fit it."""
    yield refused("meaning: no architecture", changed, "UNKNOWN_ARCHITECTURE", architecture=None)
    yield refused("meaning: another architecture", changed, "KEYS_MISMATCH", architecture="resnet18")
    yield refused("meaning: no preprocessing", changed, "PREPROCESSING_MISSING", preprocessing=None)
    yield refused(
        "meaning: three names for two classes", changed, "SHAPE_MISMATCH", class_names=["a", "b", "c"]
    )
    oblong = tiny.PREPROCESSING | {"crop": [32, 48]}
    yield refused("meaning: an oblong input", changed, "SHAPE_MISMATCH", preprocessing=oblong)
    larger = tiny.PREPROCESSING | {"crop": 64}
    yield refused("meaning: an input of another size", changed, "SHAPE_MISMATCH", preprocessing=larger)
