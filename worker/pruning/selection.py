"""What a prune step removes next, and what it cannot remove at all."""

import fnmatch
from collections.abc import Callable

import torch
from torch import Tensor

from app.errors import Problem
from app.spec.steps.prune import BY_DATA, Prune
from models.channels import Group
from worker.pruning import ranking
from worker.pruning.carving import Carving, Removal
from worker.pruning.criteria import can_score, score
from worker.pruning.goal import Goal
from worker.pruning.saliency import gather
from worker.run import Run
from worker.training.loop import concatenated


class Selection:
    """Chooses the units of `carving` that go at an iteration.

    Raises Problem 422 when made, before anything is trained: EXCLUDE_UNKNOWN, NOTHING_TO_PRUNE, TARGET_UNREACHABLE.
    """

    def __init__(self, carving: Carving, spec: Prune, run: Run, check_stop: Callable[[], None]) -> None:
        self._carving = carving
        self._spec = spec
        self._run = run
        self._check_stop = check_stop
        self._start = carving.count({})["parameters"]
        self.goal = Goal(carving, spec, run) if spec.target is not None else None
        self._originals = {group.name: group.num_units for group in carving.channels.groups}
        self.not_prunable = dict(carving.channels.fixed)
        """Layer -> why none of its channels is removed."""
        self._groups = self._prunable_groups()
        self._check_amount()

    def choose(self, iteration: int) -> Removal:
        """The units that go at this iteration, counted from 1; empty where rounding down changes nothing."""
        candidates = self._candidates(self._scores(iteration))
        found = ranking.scopes(candidates, self._spec.ranking or "local", self._carving.network)
        if self._spec.keep_rate is not None:
            chosen = ranking.by_keep_rate(found, self._spec.keep_rate, iteration)
        elif self._spec.units is not None:
            chosen = ranking.in_order(found)[: self._spec.units]
        else:
            chosen = self._toward_target(found, candidates, iteration, self._spec.iterations)
        return ranking.as_removal(chosen, candidates)

    def ends_with(self, removal: Removal) -> str | None:
        """Why nothing is left to do after this removal, or None."""
        if self.goal is not None:
            count = self.goal.after(removal)
            if count <= self.goal.wanted:
                return f"the target of {self.goal.wanted:,} {self.goal.unit} is reached: {count:,}"
        candidates = self._equal_candidates()
        if all(
            each.group.num_units - len(removal.get(each.group.name, ())) <= each.floor for each in candidates
        ):
            return f"every layer is down to its floor (min_channels {self._spec.min_channels})"
        return None

    def goes_too_far(self, removal: Removal) -> str | None:
        """Why `max_removed` forbids this removal, or None."""
        allowed = self._spec.max_removed
        if allowed is None or (share := self._removed_share(removal)) <= allowed + 1e-9:
            return None
        return f"the next cut would bring what was removed to {share:.4f} of the parameters, and max_removed is {allowed}"

    # ---- how much

    def _toward_target(
        self,
        found: list[ranking.Scope],
        candidates: list[ranking.Candidate],
        iteration: int,
        iterations: int,
    ) -> list[ranking.Unit]:
        goal = self.goal
        assert goal is not None
        limit = ranking.spread(goal.start, goal.wanted, iteration, iterations, self._spec.target_schedule)

        def fits(units: list[ranking.Unit]) -> bool:
            return goal.after(ranking.as_removal(units, candidates)) <= limit

        if fits([]):
            return []
        chosen = ranking.shortest(ranking.in_order(found), fits)
        assert chosen is not None, "what is reachable was checked before"
        return chosen

    def _removed_share(self, removal: Removal) -> float:
        return 1 - self._carving.count(removal)["parameters"] / self._start

    # ---- scores

    def _scores(self, iteration: int) -> dict[str, Tensor]:
        """By group; the images are run only for criteria that ask for it."""
        spec, network = self._spec, self._carving.network
        assert network.preprocessing is not None
        training = spec.training.model_copy(update={"mixup": 0.0})  # blended images have no one label
        evidence = gather(
            network,
            spec.criterion,
            concatenated(self._run, ["train"], training) if spec.criterion in BY_DATA else None,
            network.preprocessing,
            num_batches=spec.score_batches,
            abs_per_example=spec.abs_per_example,
            check_stop=self._check_stop,
            seed=self._run.seed + iteration,
        )
        scores = {}
        for group in self._carving.groups():
            if group.name in self._groups:
                scores_U = score(
                    group, spec.criterion, evidence, coupling=spec.coupling, normalise=spec.normalise
                )
                assert scores_U is not None, "groups without a score were left out"
                self._check_finite(group, scores_U)
                scores[group.name] = scores_U
        return scores

    def _check_finite(self, group: Group, scores_U: Tensor) -> None:
        if not bool(scores_U.isfinite().all()):
            raise Problem(
                422,
                "SCORES_NOT_FINITE",
                f"criterion {self._spec.criterion!r} gives {group.name} scores that are not finite: the weights of the "
                "network hold NaN or infinity, or its loss does. Train or repair it first.",
            )

    def _candidates(self, scores: dict[str, Tensor]) -> list[ranking.Candidate]:
        return [
            ranking.candidate(
                group,
                scores[group.name],
                original_units=self._originals[group.name],
                min_channels=self._spec.min_channels,
                round_to=self._spec.round_to,
            )
            for group in self._carving.groups()
            if group.name in self._groups
        ]

    def _equal_candidates(self) -> list[ranking.Candidate]:
        """Where only numbers matter."""
        return self._candidates(
            {group.name: torch.zeros(group.num_units) for group in self._carving.groups()}
        )

    # ---- what can be removed at all

    def _prunable_groups(self) -> set[str]:
        excluded, network = self._excluded(), self._carving.original
        prunable = set()
        for group in self._carving.channels.groups:
            if group.name in excluded:
                self.not_prunable |= dict.fromkeys(group.layers, excluded[group.name])
            elif not can_score(group, self._spec.criterion, network, self._spec.coupling):
                why = f"criterion {self._spec.criterion!r} finds no layer to read on its channels"
                self.not_prunable |= dict.fromkeys(group.layers, why)
            elif group.num_units > 1:
                prunable.add(group.name)
        return prunable

    def _excluded(self) -> dict[str, str]:
        excluded: dict[str, str] = {}
        for pattern in self._spec.exclude:
            if not fnmatch.filter(self._carving.original.graph["layers"], pattern):
                shown = ", ".join(group.name for group in self._carving.channels.groups[:20])
                raise Problem(
                    422,
                    "EXCLUDE_UNKNOWN",
                    f"exclude names {pattern!r}, which fits no layer of this network: channels are made by {shown}.",
                )
            for group in self._carving.channels.groups:
                if fnmatch.filter(group.layers, pattern):
                    excluded.setdefault(group.name, f"excluded by {pattern!r}")
        return excluded

    def _check_amount(self) -> None:
        candidates = self._equal_candidates()
        found = ranking.scopes(candidates, "global", self._carving.original)
        everything = ranking.in_order(found)
        if not everything:
            reasons = "; ".join(f"{layer}: {why}" for layer, why in list(self.not_prunable.items())[:10])
            raise Problem(
                422,
                "NOTHING_TO_PRUNE",
                f"No channel of this network can be removed ({reasons or 'every layer is at min_channels'}). "
                "Exclude less, lower min_channels, or take another method.",
            )
        if self._spec.units is not None:
            self._check_units(self._spec.units, len(everything))
        if self.goal is not None:
            self._check_target(self.goal, ranking.as_removal(everything, candidates))
            if self._spec.max_removed is not None:
                self._check_allowance(self.goal, self._spec.max_removed)

    def _check_units(self, units: int, num_removable: int) -> None:
        if units * self._spec.iterations > num_removable:
            raise Problem(
                422,
                "TARGET_UNREACHABLE",
                f"units {units} in each of {self._spec.iterations} iterations asks for {units * self._spec.iterations} "
                f"channels, and {num_removable} can be removed: ask for fewer, exclude less or lower min_channels.",
            )

    def _check_target(self, goal: Goal, everything: Removal) -> None:
        if goal.start <= goal.wanted and self._spec.sparsity is None:
            return  # nothing will be cut, and nothing trained that could make the file larger
        smallest = goal.at_most_after(everything)
        if smallest > goal.wanted:
            raise Problem(
                422,
                "TARGET_UNREACHABLE",
                f"The target is {goal.wanted:,} {goal.unit}, and this network cannot go below {smallest:,} (from "
                f"{goal.start:,}) by removing channels: raise the target, exclude less, or lower min_channels "
                "and round_to.",
            )

    def _check_allowance(self, goal: Goal, allowed: float) -> None:
        """With the scores of now, which sparse training and recovery between iterations may still change."""
        candidates = self._candidates(self._scores(1))
        found = ranking.scopes(candidates, self._spec.ranking or "local", self._carving.network)
        needed = self._toward_target(found, candidates, 1, 1)
        share = self._removed_share(ranking.as_removal(needed, candidates))
        if share > allowed + 1e-9:
            raise Problem(
                422,
                "TARGET_UNREACHABLE",
                f"The target is {goal.wanted:,} {goal.unit}, from {goal.start:,}: reaching it removes {share:.4f} of the "
                f"parameters, and max_removed is {allowed}. Raise the target or max_removed, or store in fewer bits.",
            )
