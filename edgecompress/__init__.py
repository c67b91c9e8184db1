"""Makes a trained ONNX or PyTorch model smaller and faster for one device, and measures the result.

The public names are imported when they are first used, so that `import edgecompress` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecompress.api import Result, convert
    from edgecompress.devices.bench import bench
    from edgecompress.devices.firmware import build
    from edgecompress.devices.profile import profile
    from edgecompress.devices.run import run
    from edgecompress.errors import EdgeCompressError, InputError, MissingPackageError, UnsupportedModelError
    from edgecompress.inspection.layer_sensitivity import sensitivity
    from edgecompress.inspection.model_inspection import Inspection, inspect
    from edgecompress.own_loop import Prepared, finish, prepare
    from edgecompress.recipe import Recipe, load_recipe
    from edgecompress.targets import load_target

__version__ = "0.2.0"

_HOME = {
    "EdgeCompressError": "errors",
    "InputError": "errors",
    "Inspection": "inspection.model_inspection",
    "MissingPackageError": "errors",
    "Prepared": "own_loop",
    "Recipe": "recipe",
    "Result": "api",
    "UnsupportedModelError": "errors",
    "bench": "devices.bench",
    "build": "devices.firmware",
    "convert": "api",
    "finish": "own_loop",
    "inspect": "inspection.model_inspection",
    "load_recipe": "recipe",
    "load_target": "targets",
    "prepare": "own_loop",
    "profile": "devices.profile",
    "run": "devices.run",
    "sensitivity": "inspection.layer_sensitivity",
}

__all__ = [
    "EdgeCompressError",
    "InputError",
    "Inspection",
    "MissingPackageError",
    "Prepared",
    "Recipe",
    "Result",
    "UnsupportedModelError",
    "bench",
    "build",
    "convert",
    "finish",
    "inspect",
    "load_recipe",
    "load_target",
    "prepare",
    "profile",
    "run",
    "sensitivity",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f"{__name__}.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        missing = importlib.import_module(f"{__name__}.errors").MissingPackageError
        raise missing(f"edgecompress.{name} needs PyTorch: pip install 'edgecompress[torch]'") from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
