"""Build attributes of Arm ELF objects (Arm IHI 0045, "Addenda to the ABI for the Arm Architecture")."""

from __future__ import annotations

SUBSECTION, FILE_SCOPE = b"aeabi\0", 1
FP_DENORMAL, VFP_ARGUMENTS = 20, 28
ANY_VARIANT = 3  # code that passes no floating-point values links with soft- and hard-float callers
TEXT_TAGS = {4, 5, 67}  # CPU_raw_name, CPU_name, conformance: zero-terminated text; others are ULEB128 numbers


def without_float_arguments(elf: bytes) -> bytes:
    """The object, marked as linkable with either floating-point calling convention.

    For an object whose functions are called with pointers and integers only, whatever they pass to one another. Where
    LLVM writes no such tag, which linkers read as soft-float, it goes into the place of the one about denormal floats,
    so that nothing moves.
    """
    at = elf.find(SUBSECTION + bytes([FILE_SCOPE]))
    if at < 0:
        return elf
    scope = at + len(SUBSECTION)
    end = scope + int.from_bytes(elf[scope + 1 : scope + 5], "little")
    tags, position = {}, scope + 5
    while position < end:
        tag, value = _number(elf, position)
        tags[tag] = position
        position = elf.index(0, value) + 1 if tag in TEXT_TAGS else _number(elf, value)[1]
    place = tags.get(VFP_ARGUMENTS, tags.get(FP_DENORMAL))
    if place is None:
        return elf
    return elf[:place] + bytes([VFP_ARGUMENTS, ANY_VARIANT]) + elf[place + 2 :]


def _number(data: bytes, at: int) -> tuple[int, int]:
    """(ULEB128 number at `at`, position behind it)."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
