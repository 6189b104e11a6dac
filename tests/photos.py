"""Small pictures that a small network can learn, made on the spot: tests need no download."""

import io
import random
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

CLASSES = ["bars", "disc", "ring"]


def picture(label: str, rng: random.Random, size: int = 40) -> Image.Image:
    """A shape of random colour, place and size on a noisy ground."""
    ground = tuple(rng.randrange(30, 120) for _ in range(3))
    colour = tuple(rng.randrange(100, 256) for _ in range(3))
    image = Image.new("RGB", (size, size), ground)
    draw = ImageDraw.Draw(image)
    x, y, r = rng.randrange(14, size - 14), rng.randrange(14, size - 14), rng.randrange(7, 12)
    if label == "bars":
        for offset in range(-r, r, 5):
            draw.line((x - r, y + offset, x + r, y + offset), fill=colour, width=2)
    elif label == "disc":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    else:
        draw.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=3)
    for _ in range(40):
        image.putpixel(
            (rng.randrange(size), rng.randrange(size)), tuple(rng.randrange(256) for _ in range(3))
        )
    return image


def photos_zip(
    path: Path, *, train: int = 60, val: int = 15, test: int = 20, unlabeled: int = 0, seed: int = 0
) -> Path:
    """A zip `<split>/<class>/<n>.jpg` with so many pictures a class."""
    rng = random.Random(seed)
    with zipfile.ZipFile(path, "w") as archive:
        for split, count in (("train", train), ("val", val), ("test", test)):
            for label in CLASSES:
                for number in range(count):
                    buffer = io.BytesIO()
                    picture(label, rng).save(buffer, "JPEG", quality=92)
                    archive.writestr(f"{split}/{label}/{number:04}.jpg", buffer.getvalue())
        for number in range(unlabeled):
            buffer = io.BytesIO()
            picture(rng.choice(CLASSES), rng).save(buffer, "JPEG", quality=92)
            archive.writestr(f"unlabeled/{number:04}.jpg", buffer.getvalue())
    return path
