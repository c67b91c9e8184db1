"""Convolution, operator, convolution in int8: every form of operator that networks have between two layers.

    python tests/bench/int8_forms.py [FORM ...] [--target android cortex-m4]

Each form is converted with 64 calibration samples, of which a fifth is held out for the checks. Prints the signal to
noise ratio of the worst file in its worst interpreter, in dB, and what the report says stays in float; then how many
forms convert, the median, and the forms below 20 and 30 dB. Exits 1 where a form does not convert, is below 20 dB, or
leaves with another exit code than 0 though it is not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

import edgecompress
from edgecompress.errors import EdgeCompressError

SAMPLES, LEAST, GOOD = 64, 20.0, 30.0
CHANNELS, SIZE = 8, 8


@dataclass(frozen=True)
class Form:
    """body: nodes that make c of a, and of e, which are both [1, 8, 8, 8]. channels: of c. constants, weights: arrays,
    and shapes of random ones. opset: that has the operator."""

    body: str
    channels: int = CHANNELS
    constants: dict[str, object] = field(default_factory=dict)
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    opset: int = 21


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


ONE_VALUE = {
    **{op: f"c = {op}(a)" for op in (
        "Abs Asinh Atan Ceil Celu Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Mish Neg Relu Round Selu "
        "Sigmoid Sign Sin Sinh Softplus Softsign Tanh ThresholdedRelu Cosh Shrink Identity"
    ).split()},
    "Gelu, tanh": 'c = Gelu<approximate="tanh">(a)',
    "Swish, written out": "s = Sigmoid(a) c = Mul(a, s)",
    "Gelu, written out": "d = Mul(a, root) f = Erf(d) g = Add(f, one) h = Mul(a, g) c = Mul(h, half)",
    "Log": "p = Abs(a) q = Add(p, half) c = Log(q)",
    "Sqrt": "p = Abs(a) c = Sqrt(p)",
    "Rsqrt": "p = Abs(a) q = Add(p, half) r = Sqrt(q) c = Reciprocal(r)",
    "Reciprocal": "p = Abs(a) q = Add(p, one) c = Reciprocal(q)",
    "Tan": "t = Tanh(a) c = Tan(t)",
    "Asin": "t = Tanh(a) c = Asin(t)",
    "Acos": "t = Tanh(a) c = Acos(t)",
    "Atanh": "t = Tanh(a) h = Mul(t, half) c = Atanh(h)",
    "Acosh": "p = Abs(a) q = Add(p, two) c = Acosh(q)",
    "Clip": "c = Clip(a, minus, one)",
    "Pow 2": "c = Pow(a, two)",
    "Pow 3": "c = Pow(a, three)",
    "PRelu": "c = PRelu(a, slope)",
}  # fmt: skip
TWO_VALUES = {
    **{op: f"c = {op}(a, e)" for op in "Add Sub Mul Min Max Mean Sum".split()},
    "Div": "p = Abs(e) q = Add(p, one) c = Div(a, q)",
    "Pow": "p = Abs(a) q = Add(p, half) t = Tanh(e) c = Pow(q, t)",
    "Add, constant": "c = Add(a, slope)",
    "Mul, constant": "c = Mul(a, slope)",
    "Div, constant": "c = Div(a, two)",
    "Greater, Where": "g = Greater(a, e) c = Where(g, a, e)",
    "Less, Where": "g = Less(a, half) c = Where(g, a, e)",
    "Equal, Where": "r = Relu(a) g = Equal(r, zero) c = Where(g, e, a)",
    "And, Not": "g = Greater(a, half) h = Less(e, half) i = And(g, h) n = Not(i) c = Where(n, a, e)",
    "squeeze and excite": "m = GlobalAveragePool(a) s = Sigmoid(m) c = Mul(e, s)",
}
NORMS = {
    "BatchNormalization": "r = Relu(a) c = BatchNormalization(r, gain, shift, shift, gain)",
    "LayerNormalization": "f = Flatten(a) n = LayerNormalization(f, wide) c = Reshape(n, image)",
    "LayerNormalization, last axis": "c = LayerNormalization(a, gain)",
    "GroupNormalization": "c = GroupNormalization<num_groups=2>(a, gain, shift)",
    "InstanceNormalization": "c = InstanceNormalization(a, gain, shift)",
    "LpNormalization": "c = LpNormalization<axis=1, p=2>(a)",
    "LRN": "c = LRN<size=3>(a)",
    "MeanVarianceNormalization": "c = MeanVarianceNormalization<axes=[2,3]>(a)",
    "L2, written out": "p = Mul(a, a) s = ReduceSum<keepdims=1>(p, axis1) q = Add(s, little) r = Sqrt(q) c = Div(a, r)",
}
POOLS = {
    "MaxPool": "c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)",
    "MaxPool, padded": "c = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(a)",
    "AveragePool": "c = AveragePool<kernel_shape=[2,2], strides=[2,2]>(a)",
    "AveragePool, padded": "c = AveragePool<kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1]>(a)",
    "LpPool": "c = LpPool<kernel_shape=[2,2], strides=[2,2]>(a)",
    **{f"{op}": f"m = {op}(a) c = Add(e, m)" for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")},
    **{op: f"m = {op}<keepdims=1>(a, spatial) c = Add(e, m)" for op in (
        "ReduceMean ReduceMax ReduceMin ReduceSum ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare"
    ).split()},
    "ReduceLogSum": "p = Abs(a) m = ReduceLogSum<keepdims=1>(p, spatial) c = Add(e, m)",
    "ReduceProd": "t = Tanh(a) m = ReduceProd<keepdims=1>(t, axis1) c = Add(e, m)",
}  # fmt: skip
MOVES = {
    "Concat": Form("c = Concat<axis=1>(a, e)", 16),
    "Split": "p, q = Split<axis=1, num_outputs=2>(a) r = Relu(q) c = Concat<axis=1>(r, p)",
    "Slice": Form("c = Slice(a, from1, to3, spatial)"),
    "Pad": "p = Pad(a, pads, one) c = MaxPool<kernel_shape=[2,2]>(p)",
    "Pad, reflect": 'c = Pad<mode="reflect">(a, pads)',
    "Pad, edge": 'c = Pad<mode="edge">(a, pads)',
    "Reshape": Form("c = Reshape(a, other)", 32),
    "Transpose": "c = Transpose<perm=[0,1,3,2]>(a)",
    "Transpose, channels": "c = Transpose<perm=[0,2,3,1]>(a)",
    "Tile": Form("c = Tile(a, repeats)", 16),
    "Expand": "m = GlobalMaxPool(a) c = Expand(m, image)",
    "Gather": "c = Gather<axis=1>(a, picks)",
    "GatherElements": "c = GatherElements<axis=1>(a, places)",
    "ScatterElements": "c = ScatterElements<axis=1>(a, places, e)",
    "DepthToSpace": Form("c = DepthToSpace<blocksize=2>(a)", 2),
    "SpaceToDepth": Form("c = SpaceToDepth<blocksize=2>(a)", 32),
    "Resize, nearest": 'c = Resize<mode="nearest", coordinate_transformation_mode="asymmetric">(a, , scales)',
    "Resize, linear": 'c = Resize<mode="linear">(a, , scales)',
    "Resize, cubic": 'c = Resize<mode="cubic">(a, , scales)',
    "Squeeze": "s = Squeeze(a, axis0) u = Relu(s) c = Unsqueeze(u, axis0)",
    "ReverseSequence": "s = Squeeze(a, axis0) r = ReverseSequence(s, lengths) c = Unsqueeze(r, axis0)",
    "TopK": "c, i = TopK<axis=1>(a, eight)",
    "CumSum": "c = CumSum(a, one_axis)",
    "Trilu": "c = Trilu<upper=0>(a)",
    "Dropout": "c = Dropout(a)",
}
MATRICES = {
    "MatMul": "c = MatMul(a, square)",
    "MatMul of two": "c = MatMul(a, e)",
    "Gemm": "f = Flatten(a) g = Gemm<transB=1>(f, large, bias) c = Reshape(g, image)",
    "Einsum": 'c = Einsum<equation="nchw,nckw->nchk">(a, e)',
    "Softmax": "c = Softmax<axis=-1>(a)",
    "Softmax, channels": "c = Softmax<axis=1>(a)",
    "LogSoftmax": "c = LogSoftmax<axis=-1>(a)",
    "Attention": Form("c = Attention(a, e, a)", opset=23),
    "attention, written out": (
        "t = Transpose<perm=[0,1,3,2]>(e) m = MatMul(a, t) n = Mul(m, half) s = Softmax<axis=-1>(n) c = MatMul(s, a)"
    ),
    "ArgMax, Gather": "m = ArgMax<axis=1, keepdims=0>(a) v = Gather<axis=0>(rows, m) c = Transpose<perm=[0,3,1,2]>(v)",
    "Conv, depthwise": "c = Conv<group=8, pads=[1,1,1,1]>(a, deep)",
    "Conv, grouped": "c = Conv<group=2, pads=[1,1,1,1]>(a, halves)",
    "Conv, dilated": "c = Conv<dilations=[2,2], pads=[2,2,2,2]>(a, plain)",
    "Conv, one dimension": "s = Reshape(a, line) d = Conv<pads=[1,1]>(s, narrow) c = Reshape(d, image)",
    "Conv, three dimensions": "s = Reshape(a, cube) d = Conv<pads=[1,1,1,1,1,1]>(s, solid) c = Reshape(d, image)",
    "ConvTranspose": "c = ConvTranspose<strides=[2,2]>(a, up)",
    "ConvTranspose, grouped": Form("c = ConvTranspose<strides=[2,2], group=2>(a, up)", 16),
    "LSTM": "s = Reshape(a, steps) h = LSTM<hidden_size=64>(s, wl, rl) q = Reshape(h, image) c = Relu(q)",
    "GRU": "s = Reshape(a, steps) h = GRU<hidden_size=64>(s, wg, rg) q = Reshape(h, image) c = Relu(q)",
    "RNN": "s = Reshape(a, steps) h = RNN<hidden_size=64>(s, wr, rr) q = Reshape(h, image) c = Relu(q)",
}
FORMS = {
    name: form if isinstance(form, Form) else Form(form)
    for table in (ONE_VALUE, TWO_VALUES, NORMS, POOLS, MOVES, MATRICES)
    for name, form in table.items()
}
CONSTANTS: dict[str, object] = {
    **{name: np.float32(value) for name, value in {
        "zero": 0, "half": 0.5, "one": 1, "two": 2, "three": 3, "minus": -1, "root": 0.70710678, "little": 1e-6,
    }.items()},
    "gain": np.linspace(0.5, 1.5, CHANNELS, dtype=np.float32), "shift": np.linspace(0.1, 0.4, 8, dtype=np.float32),
    "slope": np.linspace(0.1, 0.4, 8, dtype=np.float32).reshape(8, 1, 1), "wide": np.ones(512, np.float32),
    "image": integers(1, 8, 8, 8), "other": integers(1, 32, 4, 4), "line": integers(1, 8, 64),
    "cube": integers(1, 1, 8, 8, 8), "steps": integers(8, 1, 64), "spatial": integers(2, 3), "axis0": integers(0),
    "axis1": integers(1), "from1": integers(1, 1), "to3": integers(7, 7), "pads": integers(0, 0, 1, 1, 0, 0, 1, 1),
    "repeats": integers(1, 2, 1, 1), "picks": integers(7, 1, 2, 3, 4, 5, 6, 0), "eight": integers(8),
    "one_axis": np.array(1, np.int64), "lengths": integers(*range(1, 9)),
    "places": np.tile(np.arange(8)[::-1].reshape(1, 8, 1, 1), (1, 1, 8, 8)).astype(np.int64),
    "scales": np.array([1, 1, 2, 2], np.float32),
}  # fmt: skip
WEIGHTS = {
    "square": (8, 8), "large": (512, 512), "bias": (512,), "rows": (8, 8), "deep": (8, 1, 3, 3), "halves": (8, 4, 3, 3),
    "plain": (8, 8, 3, 3), "narrow": (8, 8, 3), "solid": (1, 1, 3, 3, 3), "up": (8, 8, 2, 2), "wl": (1, 256, 64),
    "rl": (1, 256, 64), "wg": (1, 192, 64), "rg": (1, 192, 64), "wr": (1, 64, 64), "rr": (1, 64, 64),
}  # fmt: skip


def model(form: Form) -> onnx.ModelProto:
    """x [1, 3, 8, 8] -> a and e, two convolutions -> the form -> y, a convolution."""
    nodes = f"a = Conv<pads=[1,1,1,1]>(x, w1, b1) e = Conv<pads=[1,1,1,1]>(x, w2, b1) {form.body} y = Conv(c, w3)"
    head = f'<ir_version: 10, opset_import: ["" : {form.opset}]>'
    proto = parser.parse_model(f"{head} g (float[1,3,{SIZE},{SIZE}] x) => (float[1,6,h,w] y) {{ {nodes} }}")
    random = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 3, 3, 3), "b1": (8,), "w3": (6, form.channels, 1, 1)} | WEIGHTS
    arrays = {
        name: (random.normal(0, 1, shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)
        for name, shape in shapes.items()
    }
    arrays |= {name: np.asarray(value) for name, value in CONSTANTS.items()}
    read = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items() if name in read)
    return proto


def measured(name: str, target: str) -> tuple[float | None, str]:
    """(dB of the worst file, what stays in float); None where it does not convert, and why."""
    samples = np.random.default_rng(1).normal(0, 1, (SAMPLES, 3, SIZE, SIZE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = edgecompress.convert(
                model(FORMS[name]), target, calib={"x": samples}, output=Path(folder) / "out", name="form"
            )
        except EdgeCompressError as error:
            return None, str(error)
    report = result.report
    ratios = [c.snr_db for a in report.artifacts for c in a.checks if c.snr_db is not None]
    worst = min(ratios) if ratios else float("nan")
    floats = [f"{layer.op} {layer.name}" for layer in report.layers if "int" not in layer.encoding]
    return worst, ", ".join(floats) + ("" if result.ok == (worst >= LEAST) else f" (ok: {result.ok})")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("forms", nargs="*", metavar="FORM", choices=[[], *FORMS])
    arguments.add_argument("--target", nargs="+", default=["android", "cortex-m4"])
    options = arguments.parse_args()
    names, failed = options.forms or list(FORMS), False
    for target in options.target:
        found = {}
        for name in names:
            ratio, text = found[name] = measured(name, target)
            print(f"{target:10} {name:30} {'refused' if ratio is None else f'{ratio:6.1f}'}  {text}", flush=True)
        ratios = {name: ratio for name, (ratio, _) in found.items() if ratio is not None}
        print(f"{target}: {len(ratios)} of {len(found)} convert; median {statistics.median(ratios.values()):.1f} dB")
        for limit in (LEAST, GOOD):
            low = ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items() if not ratio >= limit)
            print(f"  below {limit:.0f} dB: {low or 'none'}")
        failed |= len(ratios) < len(found) or not min(ratios.values()) >= LEAST
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
