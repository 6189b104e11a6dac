"""A tiny task: images of two classes that a tiny network tells apart, as files that a user would upload."""

import io
import zipfile
from pathlib import Path

import torch
from PIL import Image

from models import normalise
from models.architectures import create

CLASSES = ("dark", "light")
TEACHER = "report/final"
SIDE = 32
PREPROCESSING = {
    "resize": None,
    "crop": SIDE,
    "interpolation": "bilinear",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}


def _pixels(label: int, number: int) -> torch.Tensor:
    """uint8 [3, H, W]: grey with noise, dark or light, a quarter of them hard to tell."""
    generator = torch.Generator().manual_seed(1000 * label + number)
    level = (90 if label == 0 else 165) + (30 if number % 4 == 0 else 0) * (1 - 2 * label)
    noise = torch.randn(3, SIDE, SIDE, generator=generator) * 60
    return (level + noise).clamp(0, 255).to(torch.uint8)


def photo(label: int, number: int) -> bytes:
    """The same as a PNG file."""
    buffer = io.BytesIO()
    pixels_HWC = _pixels(label, number).permute(1, 2, 0).contiguous()
    Image.frombytes("RGB", (SIDE, SIDE), bytes(pixels_HWC.flatten().tolist())).save(buffer, "PNG")
    return buffer.getvalue()


def write_photos(path: Path, *, train: int = 24, val: int = 12, test: int = 12) -> Path:
    """A zip of <split>/<class>/<number>.png with so many images a class."""
    with zipfile.ZipFile(path, "w") as archive:
        for split, count, first in (("train", train, 0), ("val", val, 300), ("test", test, 600)):
            for label, name in enumerate(CLASSES):
                for number in range(count):
                    archive.writestr(f"{split}/{name}/{number:03}.png", photo(label, first + number))
    return path


def write_teacher(path: Path, *, seed: int = 0, class_names: tuple[str, ...] = CLASSES) -> Path:
    """A state_dict of the teacher, trained for a second on the train photos.

    Output k means `class_names[k]`.
    """
    torch.manual_seed(seed)
    network = create(TEACHER, num_classes=len(CLASSES), image_size=SIDE)
    labels_N = torch.arange(64) % len(CLASSES)
    images_NCHW = torch.stack([_pixels(label, number // 2) for number, label in enumerate(labels_N.tolist())])
    outputs_N = torch.tensor([class_names.index(name) for name in CLASSES])[labels_N]
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for start in range(0, 10 * 64, 16):
        batch = slice(start % 64, start % 64 + 16)
        loss = torch.nn.functional.cross_entropy(
            network(normalise(images_NCHW[batch], PREPROCESSING)), outputs_N[batch]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(network.state_dict(), path)
    return path
