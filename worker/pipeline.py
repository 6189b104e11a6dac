"""A compress job, told in order: measure the teachers; do the steps, once for each seed; choose; export."""

import hashlib
import platform
from typing import Any

import torch

import models
from app.spec.base import Split
from app.version import version
from worker.beginning import take_over, taken_over, total_cost, warn_of_other_environments
from worker.chain import STEPS_SHARE, Chain, note_number, note_stage, without_tables
from worker.exports import export, export_name
from worker.measure import device_name
from worker.messages import Line, Stops
from worker.run import Stopped
from worker.seeds import best_seed, summary
from worker.sensitivity import Sensitivity
from worker.setting import open_setting
from worker.stage_zero import measure_teachers
from worker.stages import Stages


def compress(order: dict[str, Any], line: Line, stops: Stops) -> dict[str, Any]:
    """Do a compress order; returns the last word: a result, or what there was when it was asked to stop.

    Raises Problem.
    """
    # Its first word: whoever follows the job sees that its trainer runs, before it has read anything.
    line.send({"type": "phase", "phase": "opening teachers and data"})
    torch.set_num_threads(order["num_threads"])
    job = _Compression(order, line, stops)
    try:
        return job.run()
    except Stopped as stopped:
        return job.stopped(stopped)


class _Compression:
    def __init__(self, order: dict[str, Any], line: Line, stops: Stops) -> None:
        self.setting = open_setting(order, line, stops)
        self.spec = self.setting.spec
        self.chains: list[Chain] = []
        self.exports: list[dict[str, Any]] = []
        self.sensitivity: dict[str, Any] | None = None

    def run(self) -> dict[str, Any]:
        setting = self.setting
        teacher = measure_teachers(setting, Stages(setting.work_dir / "stages"))
        note_stage(setting.line, teacher)
        setting.line.send({"type": "stage", **teacher})
        for position in range(self.spec.seeds):
            chain = Chain(setting, teacher, position=position, num_seeds=self.spec.seeds)
            self.chains.append(chain)
            take_over(chain)
            chain.run()
        chosen = self._chosen()
        warn_of_other_environments(chosen, self._environment())
        self._note_seeds(chosen)
        self._measure_sensitivity(chosen)
        self._export(chosen)
        # The final network stays last: it is the answer.
        artifacts = [*self.exports, *chosen.artifacts()]
        return {
            "type": "result",
            "result": self._result(chosen),
            "artifacts": artifacts,
            "class_order": self.setting.data.class_order,
        }

    def stopped(self, stopped: Stopped) -> dict[str, Any]:
        """What is worth keeping: after a cancel the finished stages and the best network of the step under
        way; of several seeds the best one that is finished.
        """
        word: dict[str, Any] = {
            "type": "stopped",
            "stop": stopped.stop,
            "class_order": self.setting.data.class_order,
        }
        if stopped.stop == "preempt" or not self.chains:
            # The work folder has it all, or there is nothing yet.
            return (
                word if stopped.stop == "preempt" else word | {"result": self._result(None), "artifacts": []}
            )
        chosen = self._chosen()
        artifacts = chosen.artifacts(finished=False)
        if stopped.model is not None and not chosen.is_finished:
            artifacts.append(chosen.keep_best(stopped.model))
        elif artifacts:
            artifacts[-1] |= {"kind": "best_so_far", "name": "best-so-far.pt"}
        return word | {"result": self._result(chosen), "artifacts": artifacts}

    # ---- seeds

    def _finished(self) -> list[Chain]:
        return [chain for chain in self.chains if chain.is_finished]

    def _chosen(self) -> Chain:
        """The best finished seed, else the one under way."""
        finished = self._finished()
        return finished[best_seed([chain.records for chain in finished])] if finished else self.chains[-1]

    def _note_seeds(self, chosen: Chain) -> None:
        if self.spec.seeds == 1:
            return
        for record in chosen.records[1:]:
            note_stage(self.setting.line, record)
        for step in self._summary():
            for split, score in step["splits"].items():
                for name in ("mean", "std", "min", "max"):
                    value = score["accuracy"][name]
                    note_number(self.setting.line, step["step"], split, f"accuracy_{name}", value, "1")

    def _summary(self) -> list[dict[str, Any]]:
        return summary([chain.records[1:] for chain in self._finished()])

    # ---- what each layer bears

    def _measure_sensitivity(self, chosen: Chain) -> None:
        if not self.spec.sensitivity:
            return
        setting, last = self.setting, len(self.spec.steps)
        split: Split = "val" if "val" in setting.splits else "test"
        final = chosen.stages.path(last)
        network = models.load(final).to(setting.device)
        assert network.preprocessing is not None
        setting.phase(f"measuring the sensitivity of layers on {split}")
        measuring = Sensitivity(
            network,
            setting.data.images(split, network.preprocessing),
            setting.data.labels(split),
            split=split,
            kept=chosen.stages.path(last, ".sensitivity.json"),
            key=hashlib.sha256(final.read_bytes()).hexdigest(),
        )
        self.sensitivity = measuring.measure(setting.check_stop, self._note_layers)

    def _note_layers(self, done: int, total: int, eta_seconds: float | None) -> None:
        last = len(self.spec.steps)
        self.setting.line.send(
            {
                "type": "progress",
                "step": last,
                "num_steps": last,
                "done": done,
                "total": total,
                "unit": "layer",
                "eta_seconds": eta_seconds,
                "fraction": STEPS_SHARE + (1 - STEPS_SHARE) * done / total,
            }
        )

    # ---- what is left behind

    def _export(self, chosen: Chain) -> None:
        last = len(self.spec.steps)
        final = chosen.stages.path(last)
        for format in dict.fromkeys(self.spec.exports):
            self.setting.check_stop()
            self.setting.phase(f"exporting {format}")
            path, measured = export(final, format, self.setting.measuring, outputs=self.setting.outputs)
            file = str(path.relative_to(self.setting.work_dir))
            name = export_name(format)
            self.exports.append(
                {
                    "step": last,
                    "kind": "export",
                    "name": name,
                    "file": file,
                    "metrics": {"format": format, **measured},
                }
            )

    def _result(self, chosen: Chain | None) -> dict[str, Any]:
        setting, digests = self.setting, self.setting.digests
        result: dict[str, Any] = {
            "stages": chosen.records if chosen else [],
            "splits": {
                split: {"digest": digests[split], "num_images": setting.data.num_images(split)}
                for split in setting.all_splits
            },
            "warnings": setting.warnings,
            "environment": self._environment(),
            "seed": chosen.seed if chosen else self.spec.seed,
        }
        if self.sensitivity is not None:
            result["sensitivity"] = self.sensitivity
        if chosen is not None and (shared := taken_over(chosen)) is not None:
            own = [record for record in chosen.records[1:] if "shared_from" not in record]
            result["taken_over"] = shared
            result["own_cost"] = total_cost(own)
        if self.spec.exports:
            result["exports"] = [{"name": e["name"], **e["metrics"]} for e in self.exports]
        if self.spec.seeds > 1:
            result["seeds"] = [
                {"seed": chain.seed, "stages": [without_tables(record) for record in chain.records[1:]]}
                for chain in self.chains
            ]
            result["summary"] = self._summary()
        return result

    def _environment(self) -> dict[str, Any]:
        precision = {getattr(step, "precision", "fp32") for step in self.spec.steps}
        return {
            "fewbytes": version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": device_name(self.setting.device),
            "num_threads": self.setting.order["num_threads"],
            "precision": sorted(precision),
            "cpu": device_name(torch.device("cpu")),
        }
