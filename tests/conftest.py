"""What the tests share: `from networks import ...` works from every test folder."""

from __future__ import annotations

import gc
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

HAVE_TORCH = find_spec("torch") is not None
NEED_TORCH = (
    "channel_groups", "distill", "networks", "prune_channels", "prune_dead", "torch_bridge", "train", "zoo",
)  # fmt: skip
collect_ignore = [] if HAVE_TORCH else [f"test_{name}.py" for name in NEED_TORCH]


# A shell starts what runs in the background with Ctrl-C ignored, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Nothing is timed: the machine may be busy.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_report_header() -> list[str]:
    missing = 'torch is not installed (pip install "edgecompress[test]"): no tests on the table of networks'
    return [] if HAVE_TORCH else [missing]


def pytest_collection_finish() -> None:
    """What has been imported stays: the collector of garbage need not walk over it, which is most of its work."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Every test runs offline: a connection to anything but this machine is an error."""
    connect = socket.socket.connect

    def local_alone(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and not ipaddress.ip_address(socket.gethostbyname(address[0])).is_loopback:
            raise AssertionError(f"a test opens a connection to {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_alone)
        yield


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order(request: pytest.FixtureRequest) -> None:
    """A module's RNG starts anew for each of its tests, whichever ran before."""
    if hasattr(request.module, "RNG"):
        request.module.RNG = np.random.default_rng(0)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """Function from a network's name to its .onnx file; each is exported once, for tests that run side by side too."""
    networks = pytest.importorskip("networks", exc_type=ImportError)
    own, base = tmp_path_factory.mktemp("networks"), tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    shared.mkdir(exist_ok=True)

    def path(name: str) -> Path:
        file = shared / f"{name}.onnx"
        if not file.exists():
            networks.export(name, own).replace(file)  # whole, or not at all
        return file

    return path
