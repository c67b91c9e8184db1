"""Programs that flash boards, by name: the words that each is called with.

{image}: the file. {chip}: its name as that program knows it (OpenOCD: of its file in target/). {port}: the serial
port. {probe}: which probe, where several are connected: the words of the second column, or none. Addresses are those of
STM32s and the ESP32-C3. None was ever run with hardware; pyocd's and esptool's words are understood by pyocd 0.46 and
esptool 5.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def _openocd(interface: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (
        "openocd",
        "-f",
        f"interface/{interface}.cfg",
        "{probe}",
        "-f",
        "target/{chip}.cfg",
        "-c",
        "program {image} verify reset exit",
    ), ("-c", "adapter serial {probe}")


# name -> command, words that choose a probe
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "pyocd": (("pyocd", "load", "--no-wait", "{probe}", "--target", "{chip}", "{image}"), ("--uid", "{probe}")),
    "openocd-cmsis-dap": _openocd("cmsis-dap"),
    "openocd-jlink": _openocd("jlink"),
    "openocd-stlink": _openocd("stlink"),
    "st-flash": (("st-flash", "{probe}", "--reset", "write", "{image}", "0x8000000"), ("--serial", "{probe}")),
    "dfu-util": (("dfu-util", "{probe}", "--alt", "0", "--dfuse-address", "0x08000000:leave", "--download", "{image}"),
                 ("--serial", "{probe}")),
    "esptool": (("esptool", "--chip", "{chip}", "--port", "{port}", "write_flash", "0x0", "{image}"), ()),
}  # fmt: skip


def words(command: Sequence[str], values: Mapping[str, str | None]) -> tuple[str, ...]:
    """What is called. command: a name in COMMANDS, or words of the user's, in which the names of `values` in braces
    stand for those."""
    whole, choice = COMMANDS[command[0]] if named(command) else (command, ())
    chosen = choice if values["probe"] else ()
    spread = [part for word in whole for part in (chosen if word == "{probe}" and choice else (word,))]
    return tuple(_filled(word, values) for word in spread)


def named(command: Sequence[str]) -> bool:
    """Whether the command is a name in COMMANDS."""
    return len(command) == 1 and command[0] in COMMANDS


def needs(command: Sequence[str], key: str) -> bool:
    """Whether the command needs a value, such as the chip, to be known."""
    whole = COMMANDS[command[0]][0] if named(command) else command
    return any(f"{{{key}}}" in word for word in whole)


def _filled(word: str, values: Mapping[str, str | None]) -> str:
    for key, value in values.items():
        word = word.replace(f"{{{key}}}", value or "")
    return word
