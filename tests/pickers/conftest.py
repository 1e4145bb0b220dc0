import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import picker_world
import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Threads only get in each other's way on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fake_picker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind `deepem` is a picker that needs no training."""
    parts = {
        "network": SimpleNamespace(DeepEMSettings=picker_world.FakeSettings),
        "training": SimpleNamespace(train=picker_world.fake_train, load=picker_world.fake_load),
    }
    for name, part in parts.items():
        module = ModuleType(name)
        vars(module).update(vars(part))
        monkeypatch.setitem(sys.modules, f"pickeropt.pickers.deepem_{name}", module)
