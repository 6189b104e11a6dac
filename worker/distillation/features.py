"""Learning from what a teacher thinks on the way: feature hints and attention transfer between named nodes.

* Hints: Romero et al. 2015, "FitNets", https://arxiv.org/abs/1412.6550. Changed: the mean squared error instead of half the
  squared norm, learned together with the rest instead of in a stage before it.
* Attention: Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1612.03928, as in their code (mean over channels and
  positions), which differs from equation 2 there by constant factors and a square root.

Shapes: N images, C channels, P positions (H x W); [N, C] values count as maps of one position.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.errors import Problem
from app.spec.steps.distill import Hint
from models import Network
from worker.run import Run


class Hinted(nn.Module):
    """The student and one regressor a `hint`, trained together; called, it is the student."""

    def __init__(
        self, student: Network, regressors: nn.ModuleDict, nodes: Sequence[str], *, regressor_macs: int
    ) -> None:
        super().__init__()
        self.student = student
        self.regressors = regressors
        """By the hint's position."""
        self.regressor_macs = regressor_macs
        """Multiply-adds an image."""
        self.features: dict[str, Tensor] = {}
        """node -> its value in the last `watched`; with gradient."""
        self._nodes = frozenset(nodes)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NC: Tensor = self.student(images_NCHW)
        return logits_NC

    def watched(self, images_NCHW: Tensor) -> Tensor:
        """The student's logits; the values of the hints' nodes are left in `features`."""
        self.features = {}
        return self.student.run(images_NCHW, keep(self.features, self._nodes))

    def loss(self, hints: Sequence[Hint], teacher_features: dict[tuple[int, str], Tensor]) -> Tensor:
        """The weighted sum over the hints, a scalar. `teacher_features`: (teacher's position, node) -> value."""
        total = torch.zeros((), device=next(iter(self.features.values())).device)
        for position, hint in enumerate(hints):
            student, teacher = self.features[hint.student], teacher_features[hint.teacher_index, hint.teacher]
            if hint.kind == "attention":
                loss = attention_loss(student.float(), teacher.float())
            else:
                loss = hint_loss(student.float(), teacher.float(), self.regressors[str(position)])
            total = total + hint.weight * loss
        return total


def keep(features: dict[str, Tensor], nodes: frozenset[str]) -> Callable[[str, Any], None]:
    """An observer for `Network.run` that puts the values of `nodes` into `features`."""

    def observe(name: str, value: Any) -> None:
        if name in nodes:
            features[name] = value.clone()  # the next node may work in place

    return observe


def hint_loss(student_NCHW: Tensor, teacher_NCHW: Tensor, regressor: nn.Module) -> Tensor:
    """Mean squared error of the regressor's map and the teacher's."""
    student_NCHW, teacher_NCHW = _same_size(student_NCHW, teacher_NCHW)
    return F.mse_loss(regressor(student_NCHW), teacher_NCHW)


def attention_loss(student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
    """Mean squared difference of the two attention maps; the numbers of channels may differ."""
    student_NCHW, teacher_NCHW = _same_size(student_NCHW, teacher_NCHW)
    return (_attention(student_NCHW) - _attention(teacher_NCHW)).square().mean()


def _attention(maps_NCHW: Tensor) -> Tensor:
    """[N, P], each row of norm 1: where the activations are large."""
    return F.normalize(maps_NCHW.square().mean(dim=1).flatten(1))


def _same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both as [N, C, H, W] with the smaller height and width of the two."""
    student_NCHW, teacher_NCHW = _as_map(student), _as_map(teacher)
    height, width = (
        min(ours, theirs) for ours, theirs in zip(student_NCHW.shape[2:], teacher_NCHW.shape[2:], strict=True)
    )
    return (
        F.adaptive_avg_pool2d(student_NCHW, (height, width)),
        F.adaptive_avg_pool2d(teacher_NCHW, (height, width)),
    )


def _as_map(value: Tensor) -> Tensor:
    return value if value.dim() == 4 else value[:, :, None, None]


def with_hints(student: Network, hints: Sequence[Hint], run: Run) -> Hinted:
    """The student with its regressors, whose new weights follow from the run's seed.

    Raises Problem 422 before any training: HINT_IMPOSSIBLE for a node that does not exist (naming those like it), a value
    that is no map, attention to a single position; TEACHER_IS_TABLE.
    """
    regressors, macs = nn.ModuleDict(), 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        for position, hint in enumerate(hints):
            teacher = _teacher_of(hint, position, run)
            ours = _map_shape(student, hint.student, f"hints[{position}].student")
            theirs = _map_shape(teacher, hint.teacher, f"hints[{position}].teacher")
            if hint.kind == "hint":
                regressors[str(position)] = nn.Conv2d(ours[1], theirs[1], 1)
                macs += ours[1] * theirs[1] * min(ours[2], theirs[2]) * min(ours[3], theirs[3])
            elif min(ours[2:].numel(), theirs[2:].numel()) == 1:
                raise _impossible(
                    f"hints[{position}] asks for attention to maps of {list(ours[2:])} and {list(theirs[2:])}, and a "
                    "single position has nothing to attend to: choose earlier nodes or kind 'hint'"
                )
    return Hinted(student, regressors, [hint.student for hint in hints], regressor_macs=macs)


def _teacher_of(hint: Hint, position: int, run: Run) -> Network:
    if hint.teacher_index >= len(run.teachers):
        raise _impossible(
            f"hints[{position}].teacher_index is {hint.teacher_index} and there are {len(run.teachers)} teachers: "
            "count from 0"
        )
    return run.network_teacher(hint.teacher_index).network


def _map_shape(network: Network, node: str, field: str) -> torch.Size:
    """[2, C, H, W] of the node's value for two images."""
    names = [each["name"] for each in network.graph["nodes"]]
    if node not in names:
        near = ", ".join(map(repr, difflib.get_close_matches(node, names, n=5, cutoff=0.3))) or repr(
            names[-2]
        )
        raise _impossible(f"{field} {node!r} is no node of that network: near it are {near}")
    value = _value_at(network, node)
    if not isinstance(value, Tensor) or value.dim() not in (2, 4) or len(value) != 2:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise _impossible(
            f"{field} {node!r} gives {shape} for two images: choose a node that gives [N, C, H, W] or [N, C]"
        )
    return _as_map(value).shape


@torch.no_grad()
def _value_at(network: Network, node: str) -> Any:
    device = next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
    was_training = network.training
    network.eval()  # or the trial would move the running means
    found: dict[str, Any] = {}

    def observe(name: str, value: Any) -> None:
        if name == node:
            found[name] = value

    network.run(torch.zeros(2, *network.input_shape, device=device), observe)
    network.train(was_training)
    return found[node]


def _impossible(what: str) -> Problem:
    return Problem(422, "HINT_IMPOSSIBLE", f"{what}.")
