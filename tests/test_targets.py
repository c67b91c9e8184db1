"""Profiles: every one is valid, LLVM knows its processor, and mistakes in one are named."""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgecompress.errors import InputError
from edgecompress.targets import all_targets, load_target
from edgecompress_targets import OPERATOR_SETS, catalogue

NAMES = {profile.name for profile in all_targets()}
MICROCONTROLLERS = {name for name in NAMES if name.startswith(("cortex-m", "riscv"))}
MINE = """
name = "mine"
family = "cortex_m"
description = "my board"
cpu = "cortex-m4"
triple = "thumbv7em-none-eabihf"
formats = ["tflite"]
operators = "tflm"
integer_only = true
io = "int8"
flash_bytes = 1000
"""


def test_every_profile_is_a_target() -> None:
    """A profile is one file; the README's table, which another test compares, is the list of them."""
    package = Path(str(resources.files("edgecompress_targets")))
    assert {file.stem for file in package.rglob("*.toml")} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_llvm_knows_the_processor(name: str, capfd) -> None:
    profile = load_target(name)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(profile.triple)
    target.create_target_machine(cpu=profile.cpu, features=",".join(profile.features))
    assert capfd.readouterr().err == ""  # where LLVM says that it does not know a processor or feature


@pytest.mark.parametrize("name", sorted(MICROCONTROLLERS))
def test_microcontrollers_are_integer_only_and_have_limits(name: str) -> None:
    profile = load_target(name)
    assert profile.integer_only and profile.io == "int8" and profile.operators == "tflm"
    assert profile.formats == ("tflite",)
    assert profile.flash_bytes and profile.ram_bytes and profile.ram_bytes < profile.flash_bytes


def test_operator_names_are_tflite_builtins() -> None:
    tflm = OPERATOR_SETS["tflm"]
    assert tflm is not None and {"CONV_2D", "FULLY_CONNECTED", "SOFTMAX", "TRANSPOSE_CONV"} <= tflm
    assert not {"GELU", "RELU_N1_TO_1"} & tflm
    assert tflm <= set(vars(schema.BuiltinOperator))


@pytest.mark.parametrize(
    ("name", "hint"), [("cortex-m5", "'cortex-m"), ("andriod", "'android'"), ("risc-v32", "'riscv32'")]
)
def test_unknown_name_has_a_hint(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"unknown target '{name}': did you mean {hint}"):
        load_target(name)


def test_own_board_from_a_file(tmp_path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(MINE)
    profile = load_target("android", path)
    assert (profile.name, profile.flash_bytes, profile.ram_bytes) == ("mine", 1000, None)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("flash_bytes", "flash_byts", "unknown key 'flash_byts': did you mean 'flash_bytes'?"),
        ('cpu = "cortex-m4"', "", "key 'cpu' is missing"),
        ("= 1000", "= -1", "key 'flash_bytes'"),
        ('"tflite"]', '"tflight"]', "key 'formats.0'"),
        ('"tflm"', '"micro"', "operators = 'micro': should be one of litert, tflm"),
        ('"int8"', '"float32"', 'integer_only = true needs io = "int8"'),
        ('["tflite"]', '["onnx"]', 'integer_only = true needs "tflite"'),
        ('"mine"', '"../mine"', "key 'name'"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "board.toml"
    path.write_text(MINE.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_target(file=path)
    message = str(caught.value)
    assert message.startswith(str(path)) and expected.lower() in message.lower() and "\n" not in message


BASED = """
base = "cortex-m4"
name = "stm32f4"
description = "STM32F401-like"
flash_bytes = 262144
"""


def test_a_file_takes_what_it_leaves_out_from_another_target(tmp_path) -> None:
    path, base = tmp_path / "board.toml", load_target("cortex-m4").model_dump()
    path.write_text(BASED)
    own = {"name": "stm32f4", "description": "STM32F401-like", "flash_bytes": 262144}
    assert load_target(file=path).model_dump() == base | own
    for line in (
        "integer_only = false",
        'features = ["+dsp"]',
        "ram_bytes = 65536",
        'io = "int8"',
        'cpu = "cortex-m7"',
    ):
        path.write_text(BASED + line)
        assert load_target(file=path).model_dump(mode="json") == load_own(path) | tomllib.loads(line)


def load_own(path) -> dict[str, object]:
    """What the file says, over its base."""
    keys = tomllib.loads(path.read_text())
    return load_target(keys.pop("base")).model_dump(mode="json") | keys


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"cortex-m4"', '"cortex-m44"', "key 'base': unknown target 'cortex-m44': did you mean 'cortex-m4'?"),
        ('"cortex-m4"', "4", "key 'base': unknown target 4: expected a target's name in quotes"),
        ('name = "stm32f4"', "", "key 'name' is missing"),
        ("flash_bytes", "flash_byte", "unknown key 'flash_byte': did you mean 'flash_bytes'?"),
        ("= 262144", "= 0", "key 'flash_bytes'"),
    ],
)
def test_mistakes_in_a_file_with_a_base_are_named(tmp_path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "board.toml"
    path.write_text(BASED.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_target(file=path)
    assert str(caught.value).startswith(str(path)) and expected in str(caught.value)


def test_another_package_adds_profiles(tmp_path, monkeypatch) -> None:
    package = tmp_path / "their_boards"
    (package / "boards").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "boards" / "mine.toml").write_text(MINE)
    (package / "android.toml").write_text(MINE.replace("mine", "android"))
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = metadata.EntryPoint("theirs", "their_boards", catalogue.ENTRY_POINT_GROUP)
    announced = {catalogue.ENTRY_POINT_GROUP: [entry]}
    monkeypatch.setattr(metadata, "entry_points", lambda group: announced[group])
    assert load_target("mine").description == "my board"
    assert load_target("android").family == "android"  # a built-in profile can't be replaced
    sys.modules.pop("their_boards", None)
