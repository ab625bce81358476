"""The worked examples of host/USER_ENCODERS.md, run as they stand there."""

from __future__ import annotations

import re
import tarfile
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import Tensor, nn

from edge_cmcl.bundle.transfer import opened
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.evaluate import evaluate
from edge_cmcl.device.model import Model
from edge_cmcl.errors import ModelError, ParityError
from edge_cmcl.host import backbone as room
from edge_cmcl.host.backbone import FrameBackbone, SignalBackbone, export_backbone
from edge_cmcl.host.export import export
from edge_cmcl.host.precision import at_precision, chosen_precisions
from edge_cmcl.host.train import train

PAGE = Path(room.__file__).with_name("USER_ENCODERS.md")
SAMPLES = 20480


def example(number: int) -> str:
    """The code of one example of the page."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[number]


def run_example(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(example(number), f"{PAGE.name}, example {number}", "exec"), {"__name__": "example"})


def answers(path: Path, *shape: int) -> NDArray[np.float32]:
    windows = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    (found,) = ort.InferenceSession(path.read_bytes()).run(None, {"windows": windows})
    return np.asarray(found)


def test_a_torch_backbone_becomes_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_example(0, tmp_path, monkeypatch)
    assert answers(tmp_path / "camera.onnx", 5, 8, 60, 80).shape == (5, 128)


def test_hugging_face_backbones_become_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="Hugging Face's transformers is not installed; it is in no lock file")
    run_example(1, tmp_path, monkeypatch)
    assert answers(tmp_path / "camera.onnx", 2, 4, 60, 80).shape == (2, 64)
    assert answers(tmp_path / "microphone.onnx", 2, 16000, 1).shape == (2, 64)


@dataclass
class Output:
    """As Hugging Face models answer."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None


class Tokens(nn.Module):
    """Answers in time, as audio models do."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.convolution, self.layout = nn.Conv1d(1 if layout == "BT" else 3, 10, 8, stride=4), layout

    def forward(self, series: Tensor) -> Output:
        shaped = {"BT": lambda: series[:, None], "BCT": lambda: series, "BTC": lambda: series.transpose(1, 2)}
        return Output(self.convolution(shaped[self.layout]()).transpose(1, 2))


@pytest.mark.parametrize("layout", ["BT", "BCT", "BTC"])
def test_a_signal_reaches_the_network_as_it_wants_it(tmp_path: Path, layout: str) -> None:
    channels = 1 if layout == "BT" else 3
    worst = export_backbone(SignalBackbone(Tokens(layout), layout), (64, channels), tmp_path / "signal.onnx")
    assert 0 <= worst < 1e-4
    assert answers(tmp_path / "signal.onnx", 3, 64, channels).shape == (3, 20)


def test_a_backbone_may_take_windows_of_any_length(tmp_path: Path) -> None:
    export_backbone(SignalBackbone(Tokens("BCT"), "BCT"), (64, 3), tmp_path / "free.onnx", free_length=True)
    assert answers(tmp_path / "free.onnx", 2, 200, 3).shape == (2, 20)


class Noisy(nn.Module):
    """Answers otherwise each time, as a network does whose dropout was left on."""

    def forward(self, series: Tensor) -> Tensor:
        return series.mean((1, 2))[:, None] + torch.rand(len(series), 4)


class Wrong(nn.Module):
    def forward(self, series: Tensor) -> Tensor:
        return series.mean()


def test_what_is_no_encoder_is_refused_and_not_written(tmp_path: Path) -> None:
    with pytest.raises(ParityError):
        export_backbone(Noisy(), (32, 2), tmp_path / "no.onnx")
    with pytest.raises(ModelError, match="gives no features"):
        export_backbone(Wrong(), (32, 2), tmp_path / "no.onnx")
    with pytest.raises(ModelError, match="layout"):
        SignalBackbone(Wrong(), "TB")
    assert list(tmp_path.iterdir()) == []


def test_maps_tokens_and_vectors_of_an_image_network_are_pooled(tmp_path: Path) -> None:
    maps = nn.Conv2d(1, 6, 3)
    vectors = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    vectors[0].load_state_dict(maps.state_dict())
    tokens = nn.Sequential(vectors[0], nn.Flatten(2), Transposed())
    windows = torch.rand(2, 3, 9, 11)
    found = [FrameBackbone(network, (8, 8), channels=1)(windows) for network in (maps, vectors, tokens)]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other)


class Transposed(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.transpose(1, 2)


@pytest.fixture(scope="module")
def digits(archive: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.safetensors and test.safetensors: speech at 16 kHz, five digits of six speakers."""
    folder = tmp_path_factory.mktemp("digits")
    parts: dict[str, list[tuple[NDArray[np.float32], int]]] = {"train": [], "test": []}
    with tarfile.open(archive("fsdd")) as tar:
        for member in tar:
            name = Path(member.name)
            if name.suffix == ".wav":
                digit, _, take = name.stem.split("_")
                part = {"0": "test", "5": "train", "6": "train"}.get(take)
                file = tar.extractfile(member)
                if part and file and digit in "01234":
                    parts[part].append((_read(file.read(), folder), int(digit)))
    for part, rows in parts.items():
        windows = np.stack([row[0] for row in rows])[:, :, None]
        labels = np.array([row[1] for row in rows])
        write_pairs(
            folder / f"{part}.safetensors", {"speech": windows}, labels=labels, label_names=list("01234"),
            rate_hz={"speech": 16000.0},
        )  # fmt: skip
    return folder


def _read(data: bytes, folder: Path) -> NDArray[np.float32]:
    (folder / "one.wav").write_bytes(data)
    with wave.open(str(folder / "one.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    audio = resample_poly(samples, 16000, 8000).astype(np.float32)[:SAMPLES]
    return np.pad(audio, (0, SAMPLES - len(audio)))


@pytest.mark.slow
def test_openwakewords_backbones_tell_spoken_digits(
    archive: Callable[[str], Path], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(archive("openwakeword")) as tar:
        tar.extractall(tmp_path, filter="data")
    run_example(2, tmp_path, monkeypatch)
    table = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    pair = f'[[pair]]\nmodalities = ["speech", "text"]\ntrain = ["{digits / "train.safetensors"}"]\n'
    (tmp_path / "edge-cmcl.toml").write_text(f'name = "digits"\n{table}\n{pair}[train]\nepochs = 5\n')
    run = train(tmp_path, tmp_path / "run", device="cpu")
    export(run, tmp_path / "speech.tar")
    with opened(tmp_path / "speech.tar") as loaded, open_pairs(digits / "test.safetensors") as test:
        (found,) = evaluate(Model(loaded), test)
    assert found.metrics["accuracy"] > 0.6  # one in five by chance
    with pytest.raises(ParityError, match="answers NaN or infinity in fp16"):  # squares of int16 values
        at_precision(run, chosen_precisions(run, ["fp16"]), max_loss=100.0)
