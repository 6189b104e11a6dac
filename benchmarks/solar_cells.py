"""Real photos from PyPI, for whoever has none at hand: 2,624 solar cells seen by electroluminescence.

The package elpv-dataset (CC BY-NC-SA 4.0) installs them: Buerhop-Lutz et al. 2018, Deitsch et al. 2019,
https://github.com/zae-bayern/elpv-dataset. Each cell is mono- or polycrystalline, and experts gave the probability that
it is defective: 0, 1/3, 2/3 or 1.
"""

import io
import zipfile
from pathlib import Path

from PIL import Image

SIDE = 96
"""Of the photos' 300 pixels."""

_LABELS = {0.0: "sound", 1.0: "defective"}
# Of ten cells that follow each other: which go to val and test. The others are for training.
_SPLITS = {4: "val", 1: "test", 7: "test"}


def by_kind(target: Path) -> Path:
    """A zip with four classes, {mono, poly} x {sound, defective}, split 70/10/20, at `SIDE` pixels a side; the 401 cells of
    which the experts were not sure are its split `unlabeled`. Made once."""
    if target.exists():
        return target
    import elpv_dataset  # only this function needs it

    source = Path(elpv_dataset.__file__).parent / "data"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".part")
    with zipfile.ZipFile(temporary, "w") as archive:
        for number, line in enumerate((source / "labels.csv").read_text().splitlines()):
            path, probability, kind = line.split()
            name = f"{_folder(number, float(probability), kind)}/{Path(path).name}"
            archive.writestr(name, _small(source / path))
    temporary.replace(target)
    return target


def _small(photo: Path) -> bytes:
    """Networks of this gallery see no more, and every job decodes all photos."""
    buffer = io.BytesIO()
    with Image.open(photo) as opened:
        opened.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(buffer, "PNG")
    return buffer.getvalue()


def _folder(number: int, probability: float, kind: str) -> str:
    if probability not in _LABELS:
        return "unlabeled"
    return f"{_SPLITS.get(number % 10, 'train')}/{kind}_{_LABELS[probability]}"
