"""The built-in architectures and their sizes, for the API, which has no torch to build them.

python -m worker.catalogue           writes app/planning/architectures.json
python -m worker.catalogue --check   exits 1 when that file is stale
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from app.planning.architectures import PATH
from models.architectures import ARCHITECTURES, create_skeleton
from models.blueprint import Architecture, Option
from models.graph import trace
from models.layers import layer_table
from models.load_artifact import build


def entry(architecture: Architecture) -> dict[str, Any]:
    """What the API tells about one architecture; the sizes are those at its defaults.

    `tensor_names_sha256`: by its tensors' names a checkpoint is recognised (`names_digest`): those depend neither on
    the number of classes nor on the image size.
    `macs`: multiply-adds for one image. `num_layers` counts every layer, those without weights too.
    `size_bytes_fp32`: the parameters alone, four bytes each.
    """
    skeleton = create_skeleton(architecture.name, num_classes=architecture.num_classes)
    image = torch.empty(1, 3, architecture.image_size, architecture.image_size, device="meta")
    with torch.device("meta"):
        network = build(trace(skeleton, image))
    table = layer_table(network)
    return {
        "name": architecture.name,
        "family": architecture.family,
        "source": architecture.source,
        "image_size": architecture.image_size,
        "minimum_image_size": architecture.minimum_image_size,
        "image_size_multiple": architecture.image_size_multiple,
        "num_classes": architecture.num_classes,
        "options": {name: _described(option) for name, option in architecture.options.items()},
        "parameters": table["parameters"],
        "macs": table["macs"],
        "num_layers": sum(layer["type"] != "Scope" for layer in network.graph["layers"].values()),
        "size_bytes_fp32": 4 * table["parameters"],
        "tensor_names_sha256": names_digest(skeleton.state_dict()),
    }


def names_digest(names: Iterable[str]) -> str:
    """sha256 of the names, sorted, one a line."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def _described(option: Option) -> dict[str, Any]:
    return {key: value for key, value in asdict(option).items() if value is not None}


def render(entries: list[dict[str, Any]]) -> str:
    """The file's text: one architecture a line, so that a change shows as the lines it touches."""
    return "[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m worker.catalogue", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is stale")
    text = render([entry(architecture) for architecture in ARCHITECTURES.values()])
    if not parser.parse_args(arguments).check:
        PATH.write_text(text)
    elif not PATH.exists() or PATH.read_text() != text:
        sys.exit(f"{PATH.name} is stale: run `python -m worker.catalogue` and commit what it writes")


if __name__ == "__main__":
    main()
