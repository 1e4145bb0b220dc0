"""Everything that computes, on a pretended GPU: each tensor is where the network is, and comes back."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import finetune_world
import numpy as np
import pytest
import torch
from torch import nn

from pickeropt.finetune.finetuning import finetune
from pickeropt.io.micrographs import read_micrograph
from pickeropt.pickers import deepem_training as deepem
from pickeropt.pickers import deepem_training as deepem_picker
from pickeropt.pickers import deeppicker_training as deeppicker
from pickeropt.pickers import deeppicker_training as deeppicker_picker
from pickeropt.pickers import yolo_training as yolo
from pickeropt.pickers import yolo_training as yolo_picker
from pickeropt.pickers.deepem_network import DeepEMSettings
from pickeropt.pickers.deeppicker_network import DeepPickerSettings
from pickeropt.pickers.picker_records import Material, PickedMicrograph, PickerTrainingJob
from pickeropt.pickers.yolo_network import YoloSettings
from pickeropt.pretrain.pretraining import pretrain
from pickeropt.prune.scoring import load_scorer
from tests.pickers.deeppicker_world import micrograph
from tests.pretended_gpu import CPU, GPU, PretendedGpu
from tests.pretrain import pretrain_world


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`cuda:0` is there; networks this small pass on one thread."""
    for module in [m for name, m in sys.modules.items() if name.startswith("pickeropt.")]:
        if hasattr(module, "choose_device"):
            monkeypatch.setattr(module, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with PretendedGpu():
        yield
    torch.set_num_threads(before)


def test_the_pretended_gpu_refuses_what_a_real_one_does(gpu: None) -> None:
    layer = nn.Linear(3, 2).to(GPU)
    there = torch.ones(4, 3, device=GPU)
    assert layer(there).device == layer.weight.device == GPU
    assert layer(there).cpu().device == CPU
    np.testing.assert_allclose((there + 1).cpu().numpy(), 2)
    assert (there * torch.tensor(3.0)).sum().item() == 36  # a number may come from anywhere
    assert there[torch.tensor([0, 1])].shape == (2, 3)  # so may indices
    for wrong in (
        lambda: layer(torch.ones(4, 3)),
        lambda: there + torch.ones(4, 3),
        lambda: torch.cat([there, torch.ones(4, 3)]),
        lambda: torch.ones(4, 3)[torch.tensor([0], device=GPU)],
    ):
        with pytest.raises(RuntimeError, match="same device"):
            wrong()
    with pytest.raises((RuntimeError, TypeError), match="numpy"):
        there.numpy()


def test_it_trains_as_the_cpu_does(gpu: None) -> None:
    ends = []
    for device in (CPU, GPU):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2).to(device)
        x, labels = torch.randn(8, 3).to(device), (torch.arange(8) % 2).to(device)
        optimiser = torch.optim.AdamW(layer.parameters(), 0.1)
        for _ in range(3):
            optimiser.zero_grad()
            nn.functional.cross_entropy(layer(x), labels).backward()
            optimiser.step()
        ends.append(layer.weight.detach().cpu())
    assert torch.equal(ends[0], ends[1])


@pytest.mark.parametrize(("recipe", "bfloat16"), [("default", False), ("default", True), ("paper", False)])
def test_finetune_and_prune(gpu: None, tmp_path: Path, monkeypatch, recipe: str, bfloat16: bool) -> None:
    """But autocast, which a pretended GPU has none of."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8 if bfloat16 else 7, 0))
    shots = finetune_world.make_shots(tmp_path, count=2)
    config = replace(finetune_world.CONFIG, recipe=recipe, shots_per_class=3, device="cuda:0")
    finetune(shots, config, tmp_path / "model.safetensors")
    first = read_micrograph(shots.micrographs[0])
    on_gpu, on_cpu = (
        load_scorer(tmp_path / "model.safetensors", device).score(
            first, shots.coordinates[:5], finetune_world.PIXEL_SIZE
        )
        for device in ("cuda:0", "cpu")
    )
    np.testing.assert_allclose(on_gpu, on_cpu, atol=0.05)


def test_finetune_on_boxes(gpu: None, tmp_path: Path) -> None:
    config = replace(finetune_world.CONFIG, pixel_size=5.0, device="cuda:0")
    report = finetune(finetune_world.noise_boxes(), config, tmp_path / "model.safetensors")
    assert report.accuracy is not None
    assert report.accuracy > 0.9


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_pretrain(gpu: None, tmp_path: Path, recipe: str) -> None:
    weights = pretrain_world.make_weights(tmp_path / "weights.safetensors")
    make = pretrain_world.make_micrographs if recipe == "default" else pretrain_world.make_folders
    config = pretrain_world.tiny(weights, recipe, device="cuda:0", steps=4)

    def kill(what: str, done: int, total: int) -> None:
        if what == "training":
            assert torch.backends.cudnn.enabled
            assert torch.backends.cudnn.deterministic
        if what == "training" and done == 4:
            raise KeyboardInterrupt

    data = make(tmp_path / "data")
    with pytest.raises(KeyboardInterrupt):
        pretrain(data, tmp_path / "backbone.safetensors", replace(config, save_every=2), on_progress=kill)
    report = pretrain(data, tmp_path / "backbone.safetensors", replace(config, save_every=2))
    assert report.resumed_at == 2
    assert np.isfinite(report.final["loss"])


PICKERS: tuple[tuple[ModuleType, ModuleType, object], ...] = (
    (deepem, deepem_picker, DeepEMSettings(box=48, least_steps=8, epochs=1, batch=16, rounds=1)),
    (deeppicker, deeppicker_picker, DeepPickerSettings(epochs=1, batch_size=16)),
    (yolo, yolo_picker, YoloSettings(width=0.05, input_size=128, epochs=1, batch_size=2)),
)


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Sequence[PickedMicrograph]:
    folder = tmp_path_factory.mktemp("discs")
    return [micrograph(folder, seed) for seed in range(3)]


@pytest.mark.parametrize(
    ("training", "picker", "settings"), PICKERS, ids=[p[0].__name__.split(".")[2] for p in PICKERS]
)
def test_pickers(gpu: None, discs: Sequence[PickedMicrograph], tmp_path: Path, training, picker, settings) -> None:
    material = Material(tuple(discs[:2]), (discs[2],))
    job = PickerTrainingJob(0, GPU, tmp_path, lambda what, done, total: None)
    made = training.train(material, settings, job, None)
    assert {tensor.device for tensor in made.state.values()} == {CPU}
    again = training.train(material, settings, job, None)  # from what the first left in its folder
    assert all(torch.equal(again.state[name], value) for name, value in made.state.items())
    ready = picker.load(made.settings, made.state, made.threshold, GPU)
    one = discs[2]
    found = ready.detect(read_micrograph(one.path), one.pixel_size, one.diameter_angstrom)
    assert np.isfinite(found.scores).all()
