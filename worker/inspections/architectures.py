"""The layer table of a built-in architecture."""

from typing import Any

import models
from app.spec.resources import ArchitectureQuery
from worker.inspections.teachers import create
from worker.messages import Line, Stops


def architecture(order: dict[str, Any], line: Line, stops: Stops) -> dict[str, Any]:
    """The layer table of a built-in architecture. Raises Problem 422."""
    query = ArchitectureQuery.model_validate(order["spec"])
    network = create(
        query.architecture, query.options, num_classes=query.num_classes, image_size=query.image_size
    )
    table = models.layer_table(network)
    return {
        "type": "result",
        "result": {
            "layers": table["rows"],
            "parameters": table["parameters"],
            "macs": table["macs"],
            "input_shape": list(network.input_shape),
            "num_classes": query.num_classes,
        },
    }
