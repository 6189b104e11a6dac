"""Photos: from an archive or a folder to an index and a pack, and from those to arrays."""

from worker.datasets.build import build_dataset
from worker.datasets.image_data import ImageData

__all__ = ["ImageData", "build_dataset"]
