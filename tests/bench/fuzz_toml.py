"""Fuzzes what reads TOML: recipes, targets, devices.

    python tests/bench/fuzz_toml.py [--seconds 60] [--seed 0]

Inputs are real files whose lines, keys, values and tables are changed, repeated and moved, several at once; of some the
bytes are changed as well.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
from functools import cache
from pathlib import Path

from fuzzing import Fuzzer, changed_bytes, chosen, main

from edgecompress.devices.configuration import load_devices
from edgecompress.errors import InputError
from edgecompress.recipe import load_recipe
from edgecompress.recipe.schema import Recipe
from edgecompress.targets import load_target
from edgecompress_targets.drivers.driver_table import DRIVERS

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("recipe", "target", "devices")
VALUES = (
    "0", "-1", "1", "2", "1e308", "-1e308", "1e-320", "inf", "-inf", "nan", "true", "false", '""', '"x"', "[]",
    "{}", "[[]]",
    "[1, 2]", '["a"]', "[1.5, -2]", '["a", 1]', "{a = 1}", "9223372036854775807", "-9223372036854775808",
    "99999999999999999999999", "0x7fffffffffffffff", "0.5", "100", "256", "1979-05-27", "07:32:00",
    "1979-05-27T07:32:00Z",
    '"\\u202e\\u0000\\u001b[2J"', '"' + "x" * 2000 + '"', "'''\n\n'''", '"auto"', '"int8"', '"file.py:function"',
    '"/dev/null"',
    '"../.."', "[" * 200 + "]" * 200, "9" * 5000, "1_0", "+1", '"{image}"', "'{'", '"{}"', '"%s"',
)  # fmt: skip
KEYS = ("a", "extends", "base", "name", '"\\u202e"', "a.b.c")
TABLES = ("a", "prune", "quantize", "devices.x", "devices", "evaluate", "a.b", '"\\n"')
LINE = re.compile(r"^(\s*[\w.\"-]+\s*=\s*)(.*)$")
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-toml-"))


@cache
def files() -> dict[str, list[str]]:
    """By kind, whole files to start from."""
    recipes = [p.read_text() for p in sorted((ROOT / "edgecompress" / "recipe").rglob("*.toml"))]
    recipes.append("\n".join(_sections()))
    targets = [p.read_text() for p in sorted((ROOT / "targets" / "edgecompress_targets").rglob("*.toml"))]
    devices = [
        f'[devices.d{i}]\ndriver = "{name}"\n'
        + "\n".join(f"{key} = {VALUES[(i * 7 + j) % len(VALUES)]}" for j, key in enumerate(settings.model_fields))
        for i, (name, settings) in enumerate(DRIVERS.items())
    ]
    devices.append(
        '[devices.pi]\ndriver = "ssh"\nhost = "pi"\nuser = "me"\ntarget = "raspberry-pi"\nprefix = ["qemu"]\n'
    )
    devices.append(
        '[devices.b]\ndriver = "serial"\nport = "/dev/ttyACM0"\ntarget = "cortex-m4"\nflash = "pyocd"\nchip = "x"\n'
    )
    devices.append('[devices.p]\ndriver = "adb"\nserial = "ABC"\n[devices.p.benchmark]\ntflite = "/data/b"\n')
    return {"recipe": recipes, "target": targets, "devices": devices}


def _sections() -> list[str]:
    lines = []
    for name, field in Recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        if inner:
            lines += [f"[{name}]", *(f"{key} = 1" for key in inner)]
    return lines


def make(rng: random.Random, left_out: frozenset[int]) -> bytes:
    kind = rng.choice(KINDS)
    lines = rng.choice(files()[kind]).split("\n")
    others = rng.choice(files()[kind]).split("\n")
    broken = rng.random() < 0.2
    for source in chosen(rng, left_out, most=8):
        _change(source, lines, others)
    data = f"# {kind}\n" + "\n".join(lines)
    encoded = data.encode(errors="surrogatepass")
    return changed_bytes(rng, encoded, 2) if broken else encoded


def _change(rng: random.Random, lines: list[str], others: list[str]) -> None:
    at = rng.randrange(len(lines) + 1)
    match = LINE.match(lines[at]) if at < len(lines) else None
    if match and rng.random() < 0.6:
        lines[at] = match[1] + rng.choice(VALUES)
        return
    kind = rng.randrange(6)
    if kind == 0:
        lines.insert(at, rng.choice(others))
    elif kind == 1:
        del lines[at : at + 1]
    elif kind == 2:
        lines.insert(at, f"{rng.choice(KEYS)} = {rng.choice(VALUES)}")
    elif kind == 3:
        lines.insert(at, f"[{rng.choice(TABLES)}]")
    elif kind == 4 and match:
        lines[at] = match[1] + f"[{match[2]}]"
    elif match:
        lines[at] = rng.choice(('"x"', "x y", "")) + match[0]


def read(data: bytes) -> str:
    kind = data[2:9].decode(errors="replace").split("\n")[0].strip()
    file = FOLDER / "file.toml"
    file.write_bytes(data)
    if kind == "target":
        load_target("android", file)
    elif kind == "devices":
        for found in load_devices(file).values():
            if isinstance(found, InputError) and not str(found).isprintable():
                raise found
    else:
        load_recipe(file)
    return f"{kind if kind in KINDS else 'other'}: read"


FUZZER = Fuzzer("toml", make, read, (InputError,), ".toml")

if __name__ == "__main__":
    sys.exit(main(FUZZER))
