"""The vector units that have kernels, and which of them this machine has."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass, replace

import llvmlite.binding as llvm
import numpy as np

# what LLVM calls an x86 CPU, by its instructions and not by its name
FAR, NEAR, OLD = "x86-64-v4", "x86-64-v3", "x86-64-v2"


@dataclass(frozen=True)
class Variant:
    """name: also of the cache's files. lanes: of int32 in a vector. products: of one lane in one step, 4 of
    uint8 * int8 or 2 of int16 * int16. dot: LLVM's name of that step ("" for plain vector arithmetic).
    registers: vectors that a block may hold. needs: features of the CPU. cpu, features: what LLVM compiles for,
    "" for the CPU that it is. cost: cycles of a step, in the time of two loads. pick: LLVM's name of an instruction
    that fills a vector with any bytes of another, "" where there is none for whole vectors; pick_of_two: of two others.
    pack: LLVM's name of those that make one vector of two, with half as many bits for each number ("dw" or "wb" in it),
    "" for none."""

    name: str
    lanes: int
    products: int
    dot: str
    registers: int
    needs: tuple[str, ...]
    cpu: str
    features: str
    cost: float = 1.0
    pick: str = ""
    pick_of_two: str = ""
    pack: str = ""

    @property
    def element(self) -> int:
        """Bytes of an activation as a step reads it."""
        return 4 // self.products

    @property
    def fuses(self) -> bool:
        """Whether it multiplies and adds floats in one."""
        return bool({"fma", "avx512f"} & set(self.needs))

    @property
    def narrows(self) -> bool:
        """Whether one instruction makes bytes of a vector of int32."""
        return "avx512f" in self.needs

    @property
    def bytes(self) -> int:
        """Bytes of a vector."""
        return 4 * self.lanes


PACK_512, PACK_256 = "llvm.x86.avx512.packss{}.512", "llvm.x86.avx2.packss{}"
AVX512_VNNI = Variant(
    "avx512_vnni",
    16,
    4,
    "llvm.x86.avx512.vpdpbusd.512",
    30,
    ("avx512vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    FAR,
    "+avx512vnni",
    pack=PACK_512,
)
AVX512_VBMI = replace(
    AVX512_VNNI,
    name="avx512_vbmi",
    needs=(*AVX512_VNNI.needs, "avx512vbmi"),
    features="+avx512vnni,+avx512vbmi",
    pick="llvm.x86.avx512.permvar.qi.512",
    pick_of_two="llvm.x86.avx512.vpermi2var.qi.512",
)
AVX_VNNI = Variant(
    "avx_vnni", 8, 4, "llvm.x86.avx512.vpdpbusd.256", 15, ("avxvnni", "avx2", "fma"), NEAR, "+avxvnni", pack=PACK_256
)
AVX2 = Variant("avx2", 8, 2, "llvm.x86.avx2.pmadd.wd", 15, ("avx2", "fma"), NEAR, "", 1.5, pack=PACK_256)
# for small weights: two products of bytes fit 16 bits
AVX2_BYTES = replace(AVX2, name="avx2_bytes", products=4, dot="llvm.x86.avx2.pmadd.ub.sw", registers=14, cost=2.0)
SMALL = 64  # the largest of them, of either sign: 255 * 64 * 2 < 2**15
SSE = Variant(
    "sse", 4, 2, "llvm.x86.sse2.pmadd.wd", 15, ("sse4.1", "popcnt"), OLD, "", 1.5, pack="llvm.x86.sse2.packss{}.128"
)
GENERIC = Variant("generic", 4, 2, "", 15, (), "", "", 2.0)
# best first
VARIANTS = {variant.name: variant for variant in (AVX512_VBMI, AVX512_VNNI, AVX_VNNI, AVX2, SSE, GENERIC)}


def variant_for(features: Iterable[str]) -> Variant:
    """The best for a CPU with these features, in LLVM's names, "+" in front; GENERIC needs none."""
    has = {feature[1:] for feature in features if feature.startswith("+")}
    return next(v for v in VARIANTS.values() if has.issuperset(v.needs))


def variant_for_weights(variant: Variant, weights: np.ndarray) -> Variant:
    """The variant for a layer with these int8 weights."""
    small = variant is AVX2 and weights.min(initial=0) >= -SMALL and weights.max(initial=0) <= SMALL
    return AVX2_BYTES if small else variant


def available() -> tuple[Variant, ...]:
    """Those that run here, the best first."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    features = llvm.get_host_cpu_features()
    return tuple(v for v in VARIANTS.values() if all(features.get(n) for n in v.needs) and (x86 or not v.needs))
