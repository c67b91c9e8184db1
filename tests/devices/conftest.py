"""Small models and a configuration for tests of devices."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))

from layer_cases import Layers

from edgecompress.devices.configuration import add_device
from edgecompress_runtime.pack import write_pack

SIZE, CLASSES = 300, 10  # inputs of several frames


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One dense int8 layer."""
    return written(tmp_path_factory.mktemp("pack") / "dense.pack", seed=0)


@pytest.fixture(scope="session")
def other_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with other weights, and of the same name."""
    return written(tmp_path_factory.mktemp("other") / "dense.pack", seed=1)


def written(path: Path, seed: int) -> Path:
    layers = Layers(seed)
    layers.dense(1, SIZE, CLASSES)
    path.write_bytes(write_pack(layers.plan(), "dense"))
    return path


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 of them, with labels."""
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    random = np.random.default_rng(0)
    np.savez(path, x=random.normal(0, 2, (40, SIZE)).astype(np.float32), y=random.integers(0, CLASSES, 40))
    return path


@pytest.fixture
def configured(tmp_path: Path):
    """Function of name=table...: a configuration file with these devices."""

    def write(**devices: dict[str, object]) -> Path:
        path = tmp_path / "devices.toml"
        path.unlink(missing_ok=True)
        for name, table in devices.items():
            add_device(name, table, path)
        return path

    return write


@pytest.fixture(autouse=True)
def no_configuration_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-configuration"))
