"""The command for a user's own machine: two files side by side, the user's code, an artifact at the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import models
from models import load_artifact, trace_network
from tests.models.conftest import PREPROCESSING

USER_CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.fc = nn.Linear(6, classes)
        self.auxiliary = nn.Linear(6, classes)

    def forward(self, x):
        x = self.conv(x).relu().mean((2, 3))
        x = nn.functional.dropout(x, 0.5, self.training)
        if self.training:
            return self.fc(x), self.auxiliary(x)
        return self.fc(x)

def build():
    return Net()

class Branches(Net):
    def forward(self, x):
        return self.fc(x.mean((2, 3))) if x.sum() > 0 else x
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The user's folder: their module, a checkpoint of DataParallel training, the two downloaded files."""
    for module in (load_artifact, trace_network):
        source = Path(module.__file__)
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / "mynet.py").write_text(USER_CODE)
    (tmp_path / "names.txt").write_text("ant\nbée\ncat\ndog\n", encoding="utf-8")
    (tmp_path / "preprocessing.json").write_text(json.dumps({**PREPROCESSING, "crop": [16, 16]}))
    code: dict = {}
    exec(USER_CODE, code)  # the test's own text, as the user would import it
    torch.manual_seed(0)
    net = code["build"]().eval()
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "weights.pt")
    images = torch.rand(5, 3, 16, 16)
    torch.save((images, net(images).detach()), tmp_path / "expected.pt")
    return tmp_path


def _trace(desk: Path, *arguments: str) -> str:
    command = [sys.executable, "trace_network.py", *arguments, "--out", "traced.pt"]
    done = subprocess.run(
        command,
        cwd=desk,
        env={"PATH": "", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_users_network_becomes_an_artifact(desk: Path) -> None:
    said = _trace(
        desk,
        *("mynet:build", "--checkpoint", "weights.pt", "--input", "3x16x16"),
        *("--class-names", "names.txt", "--preprocessing", "preprocessing.json"),
    )
    assert "auxiliary.weight" in said
    network = models.load(desk / "traced.pt")
    images, logits = torch.load(desk / "expected.pt", weights_only=True)
    assert torch.equal(network(images), logits)
    assert network.class_names == ["ant", "bée", "cat", "dog"]
    assert network.preprocessing == {**PREPROCESSING, "crop": [16, 16]}
    network.train()
    assert not torch.equal(network(images), network(images)), "the functional dropout was lost"


def test_preprocessing_and_class_names_may_be_left_out(desk: Path) -> None:
    _trace(desk, "mynet:Net", "--input", "3x16x16")
    network = models.load(desk / "traced.pt")
    assert network.class_names is None
    assert network.preprocessing is None
    assert network.num_classes == 4


def test_mistakes_are_explained(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mynet", raising=False)

    def complaint(*arguments: str, size: str = "3x16x16") -> str:
        assert trace_network.main([*arguments, "--input", size, "--out", "traced.pt"]) == 1
        return capsys.readouterr().err

    (desk / "two.txt").write_text("a\nb\n")
    (desk / "large.json").write_text(json.dumps({"crop": 32}))
    torch.save({"conv.weight": torch.zeros(1)}, desk / "other.pt")
    assert "my_module:build" in complaint("mynet")
    assert "No module named" in complaint("nonet:build")
    assert "mynet.py, line" in complaint("mynet:Branches")
    assert "2 names, the network 4" in complaint("mynet:build", "--class-names", "two.txt")
    assert "[32, 32]" in complaint("mynet:build", "--preprocessing", "large.json")
    assert "does not fit" in complaint("mynet:build", "--checkpoint", "other.pt")
    with pytest.raises(SystemExit):
        complaint("mynet:build", size="16")
    assert "CxHxW" in capsys.readouterr().err
    assert not (desk / "traced.pt").exists()
    monkeypatch.delitem(sys.modules, "mynet")
