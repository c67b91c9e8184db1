"""The product that requantization consists of, in both forms, against Python's integers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import llvmlite.binding as llvm
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgecompress_runtime.llvm.rounded_product import SYMBOL, definition

INT32 = st.integers(-(2**31), 2**31 - 1)


@pytest.fixture(scope="module", params=["thumbv6m-none-eabi", "thumbv7em-none-eabihf"])
def product(request: pytest.FixtureRequest) -> Iterator[Callable[[int, int, int], int]]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(definition(request.param)), machine)
    engine.finalize_object()
    yield ctypes.CFUNCTYPE(*[ctypes.c_int32] * 4)(engine.get_function_address(SYMBOL))
    del engine


# many in each example: to make an example takes longer than to compute with what is in it
@settings(max_examples=250, deadline=None)
@given(numbers=st.lists(st.tuples(INT32, INT32, INT32), min_size=1, max_size=20))
@example(
    numbers=[
        (0x7FFFFFFF, 0x7FFFFFFF, 0),
        (0x0000FFFF, 0x7FFFFFFF, 0),  # the largest sum of two of the four products
        (-(2**31), -(2**31), -1),
        (-1, 1, 2**31 - 1),
    ]
)
def test_both_forms_are_exact(product: Callable[[int, int, int], int], numbers: list[tuple[int, int, int]]) -> None:
    for a, b, c in numbers:
        exact = ((a * b + 2**31) >> 32) + c
        assert product(a, b, c) == (exact + 2**31) % 2**32 - 2**31
