"""Batch norms folded into the layers before them.

Jacob et al. 2018, section 3.2, https://arxiv.org/abs/1712.05877: in eval mode a batch norm multiplies each channel by
gamma / sqrt(var + eps) and shifts it, so weights and bias of the layer before can hold both. Changed: also for linear
layers, and a norm whose input has another user, or whose layer is called twice, is left alone and named.
"""

from app.spec.steps.fold import Fold
from models import Network
from models.surgery import batch_norms, fold_batch_norm
from worker.run import Run


def apply(model: Network | None, spec: Fold, run: Run) -> Network:
    """The network without the batch norms that could be folded; `details` says which, and why the others stay."""
    assert model is not None, "the pipeline gives the network of the step before"
    norms = batch_norms(model)
    folded = [{"norm": norm.name, "into": norm.into} for norm in norms if norm.into is not None]
    kept = [{"norm": norm.name, "reason": norm.reason} for norm in norms if norm.into is None]
    run.details["folded"], run.details["kept"] = folded, kept
    run.note("folded_norms", len(folded))
    if not folded:
        why = f"none of its {len(norms)} batch norms can go: {kept[0]['reason']}" if norms else "it has none"
        run.log(f"No batch norm was folded: {why}.", "warning")
    return fold_batch_norm(model).eval()
