"""Mutated checkpoints through the gate: it may only refuse, or write a file that every reader can read.

    python -m tests.fuzz checkpoints --n 200000 --seed 7

File number i depends on the seed and i alone: `--first i --n 1` makes that one again.
"""

import argparse
import collections
import json
import pickle
import random
import re
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from tests.corpus import checkpoints, good
from tests.fuzz.mutations import mutated
from worker.gate import Refused, admit

MOST_SECONDS = 2.0
"""CPU time for one file of at most a few KB: a hundred times what the slowest has taken on a quiet machine."""
_LARGEST_SEED = 16 << 10
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")
_DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}


@dataclass
class Found:
    """What became of the files."""

    admitted: int = 0
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    rules: set[str] = field(default_factory=set)
    worst_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        number = self.admitted + sum(self.refused.values()) + len(self.faults)
        codes = ", ".join(f"{count} {code}" for code, count in sorted(self.refused.items()))
        return (
            f"{number} files: {self.admitted} admitted, {codes}; {len(self.rules)} rules; "
            f"worst {1000 * self.worst_seconds:.0f} ms; {len(self.faults)} faults"
        )


@dataclass(frozen=True)
class Seeds:
    """Small files to begin with. Two in three times a good one: what is refused already is refused again."""

    good: list[bytes]
    hostile: list[bytes]

    def choice(self, chance: random.Random) -> bytes:
        return chance.choice(self.hostile if chance.random() < 1 / 3 else self.good)


@cache
def seeds() -> Seeds:
    files = [case.content for case in good.by_hand()]
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(network.parameters())
    network[2](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    whole = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "best": np.float32(0.5)}
    for options in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
        files.append(good.saved(whole, **options))
    strided = {"w": torch.arange(60.0).reshape(3, 4, 5).permute(2, 0, 1), "tied": torch.zeros(4)[1::2]}
    files.append(good.saved(strided))
    course = {
        "w": (0.0, 1.0, np.arange(6, dtype=np.uint8)),
        "b": np.zeros(2, dtype=np.float16),
        "n": np.float64(3),
    }
    files += [pickle.dumps(course, protocol=protocol) for protocol in (2, 3, 4, 5)]
    labels = {"format": "fewbytes/soft-labels/1", "kind": "logits", "class_names": ["a", "b"], "paths": ["1"]}
    files.append(good.saved({**labels, "values": torch.zeros(1, 2)}))
    hostile = (case.make() for kind in checkpoints.WITHOUT_TORCH for case in kind.cases())
    return Seeds(files, [content for content in hostile if len(content) <= _LARGEST_SEED])


def file_number(index: int, seed: int, files: Seeds) -> bytes:
    chance = random.Random(f"{seed}:{index}")
    return mutated(chance, files.choice(chance), files.choice(chance))


def fuzz(count: int, *, seed: int, folder: Path, first: int = 0) -> Found:
    """Files number `first` up to `first + count`."""
    found, files = Found(), seeds()
    upload, out = folder / "upload", folder / "canonical"
    for index in range(first, first + count):
        upload.write_bytes(file_number(index, seed, files))
        began = time.process_time()
        try:
            admit(upload, out)
        except Refused as refused:
            found.refused[refused.code] += 1
            found.rules.add(refused.rule)
            if out.exists():
                found.faults.append(f"number {index} was refused and left a file")
        except Exception as error:
            found.faults.append(f"number {index} raised {error!r}")
            continue
        else:
            found.admitted += 1
            if fault := fault_of(out):
                found.faults.append(f"number {index}: {fault}")
        seconds = time.process_time() - began
        found.worst_seconds = max(found.worst_seconds, seconds)
        if seconds > MOST_SECONDS:
            found.faults.append(f"number {index} took {seconds:.1f} s")
        out.unlink(missing_ok=True)
    return found


def fault_of(canonical: Path) -> str | None:
    """What is wrong with a file that the gate wrote; None when it is in the one canonical form."""
    content = canonical.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    position = 0
    for name, entry in header.items():
        if entry["data_offsets"][0] != position or entry["dtype"] not in _DTYPES or not _NAME.fullmatch(name):
            return f"the entry {name!r} is {entry}"
        position = entry["data_offsets"][1]
    if list(header) != sorted(header) or position != len(content) - 8 - length or length % 8:
        return "its tensors are not in order, or its data has another length"
    tensors = load_file(canonical)
    if any(list(tensor.shape) != header[name]["shape"] for name, tensor in tensors.items()):
        return "the library reads other shapes"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(given.n, seed=given.seed, first=given.first, folder=Path(folder))
    for fault in found.faults[:50]:
        print(fault)
    print(found)
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
