"""Structured pruning: whole channels are removed, and what is left is trained again."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from app.spec.base import Spec, Split
from app.spec.budget import Bytes, StoredBits
from app.spec.steps.base import StepSpec
from app.spec.training import Training

Recover = Literal[
    "none", "finetune", "reinit_once", "reinit_each", "scratch_e", "scratch_b", "weight_rewind", "lr_rewind"
]
# Each preset as settings of the knobs; None where the preset leaves an epoch open. Scratch-B differs from scratch-E only in
# the number of epochs.
_PRESETS: dict[str, dict[str, Any]] = {
    "finetune": {"weights_from_epoch": "end", "schedule_from_epoch": "end", "recover_after": "each"},
    "reinit_once": {"weights_from_epoch": "new", "schedule_from_epoch": 0, "recover_after": "last"},
    "reinit_each": {"weights_from_epoch": "new", "schedule_from_epoch": 0, "recover_after": "each"},
    "scratch_e": {"weights_from_epoch": "new", "schedule_from_epoch": 0, "recover_after": "last"},
    "scratch_b": {"weights_from_epoch": "new", "schedule_from_epoch": 0, "recover_after": "last"},
    "weight_rewind": {"weights_from_epoch": None, "schedule_from_epoch": None, "recover_after": "each"},
    "lr_rewind": {"weights_from_epoch": "end", "schedule_from_epoch": None, "recover_after": "each"},
}
_KNOBS = ("weights_from_epoch", "schedule_from_epoch", "recover_after")
_BY_NORM = ("bn_gamma_signed", "bn_gamma")
BY_DATA = ("taylor", "taylor_weight", "hessian")
"""Criteria that run the training images."""
Epoch = Annotated[int, Field(ge=0, le=10_000)]


_MEASURES = ("parameters", "macs", "ratio", "bytes")


class Target(Spec):
    """How small: exactly one of the four. The first network that is no larger is taken; one that is no larger already stays
    as it is."""

    parameters: Annotated[int, Field(ge=1)] | None = None
    macs: Annotated[int, Field(ge=1)] | None = None
    """Multiply-adds of one image."""
    ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of the parameters that is left."""
    bytes: Bytes | None = None
    """Of the job's file, its weights stored at `bits`. Counted with the weights that are there and 1 % more where they will
    be trained further; with new or earlier weights, the most that any weights take."""
    bits: StoredBits | None = None
    """Of `bytes`; null: 8."""

    @model_validator(mode="after")
    def _one_measure(self) -> "Target":
        given = [name for name in _MEASURES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"target is exactly one of parameters, macs, ratio and bytes, not {' and '.join(given) or 'none'}: give one"
            )
        if self.bits is not None and self.bytes is None:
            raise ValueError(
                f"target.bits {self.bits} says how the file of target.bytes is stored, and the target is {given[0]}: "
                "leave bits out or give bytes"
            )
        if self.bytes is not None and self.bits is None:
            object.__setattr__(self, "bits", 8)
        return self


class Sparsity(Spec):
    """Training before the first cut, with a penalty that drives whole channels towards 0.

    * `slimming`: weight * sum of |gamma| over the batch norms (Liu et al. 2017, https://arxiv.org/abs/1708.06519).
    * `group`: weight * sum over the prunable channels of the L2 norm of all that belongs to one: the group lasso of Fang et
      al. 2023 (https://arxiv.org/abs/2301.12900), without its schedule of weights.
    """

    kind: Literal["slimming", "group"]
    weight: Annotated[float, Field(gt=0, le=10)] = 1e-4
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10


class Recovery(Training):
    """The training after a cut."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10


class Prune(StepSpec):
    """Remove the channels that matter least, in one or more iterations, and train what is left after each.

    How much is exactly one of:

    * `keep_rate`: after iteration k every layer (ranking `local`), every kind of layer (`isomorphic`) or the network
      (`global`) has int(n * keep_rate^k) of its n channels. Rounded down once, from the original width: five times 0.99 and
      once 0.95 leave the same widths where both round to the same number.
    * `units`: that many channels in the whole network at each iteration.
    * `target`: parameters, multiply-adds or bytes, at once or spread over the iterations.

    A unit is a channel with all that hangs on it: the filters that make it, its norms, and the weights that read it in every
    layer it reaches; channels that meet in an addition are one unit, and those of a grouped convolution are removed in
    equal number from every group. The network's outputs and the image's channels stay.

    The course's curves (StudentNet): criterion `bn_gamma_signed`, `keep_rate` 0.95, `iterations` 5 and
    `exclude` ["cnn.0.*", "cnn.1.*", "cnn.2.*", "cnn.7.3"], which leaves the widths that its `width_mult` scales.
    """

    method: Literal["prune"]
    criterion: Literal[
        "bn_gamma_signed",
        "bn_gamma",
        "l1",
        "l2",
        "fpgm",
        "taylor",
        "taylor_weight",
        "hessian",
        "lamp",
        "random",
    ] = "l2"
    """The channels with the smallest score go first.

    * `bn_gamma_signed`: gamma of the channel's batch norm with its sign, as the course has it; `bn_gamma`: |gamma|
      (network slimming).
    * `l1`, `l2`: sums of |w| and of w^2.
    * `fpgm`: the distance to all other filters (He et al. 2019, https://arxiv.org/abs/1811.00250).
    * `taylor`: |mean of activation * gradient| over the training images, by the layer's L2 norm (Molchanov et al. 2016,
      https://arxiv.org/abs/1611.06440).
    * `taylor_weight`: the sum of |w * gradient| (after Molchanov et al. 2019, https://arxiv.org/abs/1906.10771).
    * `hessian`: the sum of w^2 * E[gradient^2], the empirical Fisher for the Hessian's diagonal of LeCun et al. 1989.
    * `lamp`: `l2` by the sum of all that is as large (Lee et al. 2021, https://arxiv.org/abs/2010.07611).
    * `random`: the control.
    """
    coupling: Literal["group", "producers"] = "group"
    """`group`: the mean over all layers that a channel lives in, as torch-pruning has it; `producers`: the filters that make
    the channel alone."""
    normalise: Literal["mean", "none"] = "mean"
    """`mean`: a layer's scores are divided by their mean, so that layers can be compared; `none`: as they are. Not for
    `bn_gamma_signed`, whose mean has no sign, nor `taylor` and `lamp`, which bring their own."""
    abs_per_example: bool = False
    """Of `taylor`: the absolute value of each image before the mean over them, as in the paper."""
    score_batches: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Of `taylor`, `taylor_weight` and `hessian`: so many training batches; null: one epoch."""
    ranking: Literal["local", "global", "isomorphic"] | None = None
    """Which channels are compared: those of one group, all, or those of groups with the same structure (Fang et al. 2024,
    https://arxiv.org/abs/2407.04616). Null: `global` with `units`, else `local`."""
    keep_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    units: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    target: Target | None = None
    iterations: Annotated[int, Field(ge=1, le=1000)] = 1
    target_schedule: Literal["linear", "geometric"] = "geometric"
    """How a target is spread: equal steps, or an equal share of what is left."""
    round_to: Annotated[int, Field(ge=1, le=1024)] = 1
    """A group that loses channels keeps a multiple of this number."""
    min_channels: Annotated[int, Field(ge=1, le=65536)] = 1
    """No layer falls below, however the channels are ranked."""
    exclude: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=100)] = []
    """Patterns (`*`, `?`) of layers whose outputs keep all their channels."""
    recover: Recover | None = "lr_rewind"
    """What happens after a cut, as a setting of `weights_from_epoch`, `schedule_from_epoch` and `recover_after`:

    * `none`: nothing. `finetune`: "end", "end", each iteration.
    * `reinit_once`, `reinit_each`: "new", 0, after the last iteration or after each.
    * `scratch_e`: as reinit_once; `scratch_b`: with int(epochs * MACs before / MACs after) epochs (Liu et al. 2019,
      https://arxiv.org/abs/1810.05270).
    * `weight_rewind`: the same epoch twice, by default a tenth of the epochs; `lr_rewind`: "end", 0 (Renda et al. 2020,
      https://arxiv.org/abs/2003.02389), each iteration.

    Null with knobs of one's own.
    """
    weights_from_epoch: Literal["end", "new"] | Epoch | None = None
    """The weights to go on with: those that are there, new ones, or those after this epoch of the last step before this one
    that trained."""
    schedule_from_epoch: Literal["end"] | Epoch | None = None
    """`end`: `finetune_learning_rate` all the time, for all epochs. A number: the schedule of `training` from there to its
    end, that is `epochs` less this number."""
    recover_after: Literal["each", "last"] | None = None
    training: Recovery = Recovery()
    finetune_learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of the soft label in the loss of the recovery, from the job's teachers: as in `distill`."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 4.0
    sparsity: Sparsity | None = None
    bn_reestimation_batches: Annotated[int, Field(ge=0, le=100_000)] = 0
    """After a cut the running means and variances are taken anew from so many training batches; 0: they stay."""
    stop_if_accuracy_drops: Annotated[float, Field(ge=0, le=1)] | None = None
    """Stop when accuracy on val, after recovery, is more than this below that of the beginning (0.02: two points), and keep
    the network of the iteration before."""
    max_removed: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Stop before the cut that would leave less than 1 - this of the parameters (0.1: at most a tenth is removed). A target
    beyond is refused before anything is trained."""
    compat: Literal["stale_optimizer"] | None = None
    """`stale_optimizer`: the optimizer moves the weights of before the cut, which nobody uses any more. So only the running
    statistics of the batch norms change. So the course's code fine-tunes, and so it found that epochs matter little."""

    @model_validator(mode="before")
    @classmethod
    def _knobs_replace_the_preset(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or "recover" in fields:
            return fields
        if any(fields.get(knob) is not None for knob in _KNOBS):
            return {**fields, "recover": None}
        return fields

    @model_validator(mode="after")
    def _one_amount(self) -> "Prune":
        given = [name for name in ("keep_rate", "units", "target") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"how much to prune is exactly one of keep_rate, units and target, not {' and '.join(given) or 'none'}: "
                "give one"
            )
        if self.ranking is None:
            self._set("ranking", "global" if self.units is not None else "local")
        if self.units is not None and self.ranking != "global":
            raise ValueError(
                f"units counts channels of the whole network, which ranking {self.ranking!r} does not compare: "
                "set ranking to 'global' or give keep_rate"
            )
        if self.units is not None and self.round_to > 1:
            raise ValueError(
                f"units {self.units} counts single channels, and round_to {self.round_to} keeps a multiple: "
                "leave round_to out or give keep_rate"
            )
        return self

    @model_validator(mode="after")
    def _criterion_fits(self) -> "Prune":
        if self.criterion in _BY_NORM and self.coupling == "producers":
            raise ValueError(
                f"criterion {self.criterion!r} reads a channel's norm, and coupling 'producers' its filters alone: "
                "leave coupling out"
            )
        if self.abs_per_example and self.criterion != "taylor":
            raise ValueError(
                f"abs_per_example belongs to criterion 'taylor', not {self.criterion!r}: leave it out"
            )
        if self.score_batches is not None and self.criterion not in BY_DATA:
            raise ValueError(
                f"score_batches is for criteria that run images ({', '.join(BY_DATA)}), not {self.criterion!r}: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _recovery_fits(self) -> "Prune":
        if self.recover == "none":
            self._nothing_is_trained()
            return self
        preset = _PRESETS.get(self.recover or "", {})
        for knob in _KNOBS:
            fixed, given = preset.get(knob), getattr(self, knob)
            if fixed is not None and given is not None and fixed != given:
                raise ValueError(
                    f"recover {self.recover!r} means {knob} {fixed!r}, not {given!r}: leave one of the two out"
                )
        self._fill_in(preset)
        if self.recover == "weight_rewind" and self.schedule_from_epoch != self.weights_from_epoch:
            raise ValueError(
                f"recover 'weight_rewind' goes back to one epoch, not to {self.weights_from_epoch} with the weights and "
                f"{self.schedule_from_epoch} with the schedule: leave recover out"
            )
        if self.recover == "lr_rewind" and self.schedule_from_epoch == "end":
            raise ValueError(
                "recover 'lr_rewind' goes back in the schedule, and schedule_from_epoch is 'end': use 'finetune'"
            )
        start = self.schedule_from_epoch
        if isinstance(start, int) and start >= self.training.epochs:
            raise ValueError(
                f"schedule_from_epoch {start} leaves nothing of training.epochs {self.training.epochs}: take a smaller one"
            )
        if self.compat == "stale_optimizer" and self.weights_from_epoch != "end":
            raise ValueError(
                f"compat 'stale_optimizer' goes on with the weights that are there, not with {self.weights_from_epoch!r}: "
                "use recover 'finetune' or 'lr_rewind'"
            )
        return self

    def _nothing_is_trained(self) -> None:
        knob = next((knob for knob in _KNOBS if getattr(self, knob) is not None), None)
        if knob is not None:
            raise ValueError(
                f"recover 'none' trains nothing, so {knob} says nothing: leave one of the two out"
            )
        if self.compat is not None:
            raise ValueError(
                f"recover 'none' trains nothing, so compat {self.compat!r} says nothing: leave one of the two out"
            )
        if self.alpha and self.sparsity is None:
            raise ValueError(
                f"alpha {self.alpha} is for training, and recover is 'none': leave alpha out or recover"
            )

    def _fill_in(self, preset: dict[str, Any]) -> None:
        """Every knob gets its value, so that a spec that was resolved once says all."""
        weights = self.weights_from_epoch
        if weights is None:
            weights = preset.get("weights_from_epoch")
        if weights is None:
            weights = self.training.epochs // 10 if self.recover == "weight_rewind" else "end"
        schedule = self.schedule_from_epoch
        if schedule is None:
            schedule = preset.get("schedule_from_epoch")
        if schedule is None:
            schedule = weights if isinstance(weights, int) else 0
        self._set("weights_from_epoch", weights)
        self._set("schedule_from_epoch", schedule)
        self._set("recover_after", self.recover_after or preset.get("recover_after", "each"))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # specs are frozen once they are made

    @property
    def recovers(self) -> bool:
        return self.recover != "none"

    @property
    def trained_splits(self) -> list[Split]:
        uses = self.recovers or self.sparsity is not None or self.criterion in BY_DATA
        return ["train"] if uses or self.bn_reestimation_batches else []

    @property
    def rewind_epochs(self) -> list[int]:
        return [self.weights_from_epoch] if isinstance(self.weights_from_epoch, int) else []

    @property
    def depends_on_later_steps(self) -> bool:
        return self.target is not None and self.target.bytes is not None
