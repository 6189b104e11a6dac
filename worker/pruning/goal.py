"""The target of a prune step: what is measured, how small it shall be, and what a cut would make of it."""

import math

from app.spec.steps.prune import Prune
from worker.pruning.carving import Carving, Removal
from worker.quantization.file_size import most_packed_bytes, packed_bytes
from worker.run import Run

# Weights that are trained on from where they are deflate about as well as before. report/final, trained for 15 epochs, cut
# by 8 % and trained for 10 more: +0.01 % at 32 bits, +0.1 and +0.2 % at 16, -0.6 to -3.4 % at 8 and 4 (finetune, lr_rewind).
_TRAINED_ON = 1.01


class Goal:
    """`measure`: parameters, macs or bytes. `wanted`: the most that it may be. `start`: what it is before the first cut."""

    def __init__(self, carving: Carving, spec: Prune, run: Run) -> None:
        target = spec.target
        assert target is not None
        self._carving = carving
        self._spec = spec
        self._run = run
        self._bits = target.bits or 8
        if target.bytes is not None:
            self.measure, self.wanted = "bytes", target.bytes
        elif target.macs is not None:
            self.measure, self.wanted = "macs", target.macs
        elif target.parameters is not None:
            self.measure, self.wanted = "parameters", target.parameters
        else:
            assert target.ratio is not None
            parameters = carving.count({})["parameters"]
            self.measure, self.wanted = "parameters", math.floor(target.ratio * parameters)
        self.start = self.now()

    def now(self) -> int:
        """The measure of the network as it is."""
        if self.measure != "bytes":
            return self._carving.count({})[self.measure]
        return packed_bytes(self._carving.network, self._bits, self._run)

    def after(self, removal: Removal) -> int:
        """The measure without these units. Bytes are those of the file after the recovery, as far as that can be told."""
        if self.measure != "bytes":
            return self._carving.count(removal)[self.measure]
        if not removal and not self._is_to_be_trained():
            return self.now()
        network = self._carving.without(removal)
        if not self._spec.recovers:
            return packed_bytes(network, self._bits, self._run)
        most = most_packed_bytes(network, self._bits, self._run)
        if self._spec.weights_from_epoch != "end":
            return most
        return min(most, math.ceil(packed_bytes(network, self._bits, self._run) * _TRAINED_ON))

    def _is_to_be_trained(self) -> bool:
        """Whether earlier cuts left their recovery to the end."""
        was_cut = any(
            len(self._carving.left[group.name]) < group.num_units for group in self._carving.channels.groups
        )
        return self._spec.recovers and self._spec.recover_after == "last" and was_cut

    def at_most_after(self, removal: Removal) -> int:
        """The measure without so many units of each group, whichever they are: what bytes deflate to depends on it."""
        if self.measure != "bytes":
            return self.after(removal)
        return most_packed_bytes(self._carving.without(removal), self._bits, self._run)

    @property
    def unit(self) -> str:
        """For a sentence."""
        return f"bytes at {self._bits} bits" if self.measure == "bytes" else self.measure
