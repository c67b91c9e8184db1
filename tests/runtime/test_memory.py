from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress_runtime.codegen.memory import ALIGNMENT, Buffer, Overlap, arrange


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[Buffer], list[Overlap]]:
    """Buffers of random life, and steps that may write one over another that ends there."""
    count = draw(st.integers(1, 12))
    buffers = []
    for key in range(count):
        first = draw(st.integers(0, 10))
        buffers.append(Buffer(key, draw(st.integers(0, 400)), first, first + draw(st.integers(0, 4))))
    overlaps = [
        Overlap(w.key, r.key, draw(st.integers(0, 100)))
        for w in buffers
        for r in buffers
        if w is not r and w.first == r.last and draw(st.booleans())
    ]
    return buffers, overlaps


@given(chains())
@settings(max_examples=60, deadline=None)
def test_no_byte_is_needed_by_two_buffers_at_once(case: tuple[list[Buffer], list[Overlap]]) -> None:
    buffers, overlaps = case
    layout = arrange(buffers, overlaps)
    at = layout.offsets
    permitted = {(o.written, o.read): o.distance for o in overlaps}
    assert all(at[b.key] % ALIGNMENT == 0 and 0 <= at[b.key] <= layout.size - b.size for b in buffers)
    for i, a in enumerate(buffers):
        for b in buffers[i + 1 :]:
            together = any(a.first <= step <= a.last for step in range(b.first, b.last + 1))
            apart = at[a.key] + a.size <= at[b.key] or at[b.key] + b.size <= at[a.key]
            behind = any(
                w.first == r.last and (w.key, r.key) in permitted and at[w.key] + permitted[w.key, r.key] <= at[r.key]
                for w, r in ((a, b), (b, a))
            )
            assert not together or apart or behind or not min(a.size, b.size), (a, b, at)


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    sizes = [64, 256, 512, 128, 64]
    layout = arrange([Buffer(i, n, i, i + 1) for i, n in enumerate(sizes)])
    assert layout.size == 256 + 512


def test_elementwise_layers_work_in_place() -> None:
    buffers = [Buffer(i, 1000, i, i + 1) for i in range(5)]
    layout = arrange(buffers, [Overlap(i + 1, i, 0) for i in range(4)])
    assert layout.size == 1000
    assert arrange(buffers).size == 1008 + 1000


def test_an_output_may_trail_behind_its_input() -> None:
    layout = arrange([Buffer("x", 1024, 0, 1), Buffer("y", 1024, 1, 2)], [Overlap("y", "x", 64)])
    assert layout.size == 1024 + 64 and layout.offsets["x"] - layout.offsets["y"] == 64


def test_residual_network_of_three_equal_maps() -> None:
    """x -> conv -> conv -> add x: the skip connection keeps x alive, the second convolution trails."""
    n, d = 16_384, 512
    buffers = [Buffer("x", n, 0, 3), Buffer("a", n, 1, 2), Buffer("b", n, 2, 3), Buffer("y", n, 3, 4)]
    overlaps = [Overlap("a", "x", d), Overlap("b", "a", d), Overlap("y", "b", 0), Overlap("y", "x", 0)]
    assert arrange(buffers).size == 3 * n
    assert arrange(buffers, overlaps).size == 2 * n + d
