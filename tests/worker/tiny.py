"""A tiny task: images of two classes that a tiny network tells apart, as files that a user would upload."""

import io
import zipfile
from pathlib import Path

import torch
from PIL import Image

CLASSES = ("dark", "light")
TEACHER = "report/final"
SIDE = 32
PREPROCESSING = {"resize": None, "crop": SIDE}


def photo(label: int, number: int) -> bytes:
    """A grey image with noise: dark or light, a quarter of them hard to tell."""
    generator = torch.Generator().manual_seed(1000 * label + number)
    level = (90 if label == 0 else 165) + (30 if number % 4 == 0 else 0) * (1 - 2 * label)
    noise = torch.randn(SIDE, SIDE, 3, generator=generator) * 60
    pixels = (level + noise).clamp(0, 255).to(torch.uint8)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), pixels.numpy().tobytes()).save(buffer, "PNG")
    return buffer.getvalue()


def write_photos(path: Path, *, train: int = 24, val: int = 12, test: int = 12) -> Path:
    """A zip of <split>/<class>/<number>.png with so many images a class."""
    with zipfile.ZipFile(path, "w") as archive:
        for split, count, first in (("train", train, 0), ("val", val, 300), ("test", test, 600)):
            for label, name in enumerate(CLASSES):
                for number in range(count):
                    archive.writestr(f"{split}/{name}/{number:03}.png", photo(label, first + number))
    return path


def write_teacher(path: Path, *, seed: int = 0) -> Path:
    """A state_dict of the teacher, trained for a moment."""
    from models.architectures import create

    torch.manual_seed(seed)
    network = create(TEACHER, num_classes=len(CLASSES), image_size=SIDE)
    torch.save(network.state_dict(), path)
    return path
