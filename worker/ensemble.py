"""How good several teachers are together, from what each of them answered.

Shape letters: N images, C classes.
"""

from typing import Any

import torch
import torch.nn.functional as F


def score_ensemble(
    logits: list[torch.Tensor], labels_N: torch.Tensor, combine: str, weights: list[float] | None
) -> dict[str, Any]:
    """Accuracy and cross-entropy of the combined answer; arguments as `combined` takes them."""
    log_probabilities_NC = combined(logits, combine, weights)
    num_correct = int((log_probabilities_NC.argmax(1) == labels_N).sum())
    return {
        "accuracy": num_correct / len(labels_N),
        "num_correct": num_correct,
        "num_images": len(labels_N),
        "loss": F.nll_loss(log_probabilities_NC, labels_N).item(),
    }


def combined(logits: list[torch.Tensor], combine: str, weights: list[float] | None) -> torch.Tensor:
    """The members' answer as one: log probabilities, float64 [N, C].

    `logits`: float [N, C] of each member; `weights`: equal when None.

    `mean_probability`: the weighted mean of softmaxes; `mean_logit`: the softmax of the weighted mean of
    logits.
    """
    shares = torch.tensor(weights or [1.0] * len(logits), dtype=torch.float64)
    shares = (shares / shares.sum()).view(-1, 1, 1)
    members_MNC = torch.stack([member.double() for member in logits])
    if combine == "mean_logit":
        return (shares * members_MNC).sum(0).log_softmax(1)
    # In logs, so that a probability that underflows does not become log 0.
    return (members_MNC.log_softmax(2) + shares.log()).logsumexp(0)
