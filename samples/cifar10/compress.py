"""What each way to make a network cheaper costs the networks that `train.py` made, as int8 `.pack` files.

    python samples/cifar10/compress.py FOLDER RECIPE NETWORK [--set KEY=VALUE ..] [--seed 0]

Runs `edgecompress convert` for cortex-m4 with the recipe of that name beside this file, and prints: bytes, zeros among
the weights, multiply-accumulates (MACs) of a sample in the mean, and how many images have the right class: the float
network's in ONNX Runtime and the .pack's in the runtime, on the validation images, by which recipes were chosen, and on
the test images, which say what came of it. --set changes a number or a name in the recipe, as in `prune.sparsity=0.95`.
A run that was stopped continues where it was.
"""

from __future__ import annotations

import argparse
import json
import resource
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime

import edgecompress
import edgecompress_runtime
from edgecompress_runtime.pack import read_pack

RECIPES = sorted(path.stem for path in Path(__file__).parent.glob("*.toml"))


def main(folder: Path, name: str, network: str, changes: list[str], seed: int) -> None:
    recipe = tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8")) | {"seed": seed}
    for change in changes:
        key, _, value = change.partition("=")
        table, _, key = key.partition(".")
        recipe.setdefault(table, {})[key] = json.loads(value) if value[:1].isdigit() else value
    result = edgecompress.convert(
        folder / f"{network}.onnx",
        target="cortex-m4",
        recipe=recipe,
        train=folder / "train.npz",
        eval=folder / "validation.npz",
        output=folder / "-".join([network, name, *changes, str(seed)]),
        resume=True,
        max_drop=100,  # the row shows what it comes to
    )
    used = resource.getrusage(resource.RUSAGE_SELF)
    minutes = (used.ru_utime + used.ru_stime) / 60
    original, pack = folder / f"{network}.onnx", result.artifacts["pack"]
    weights = [t.data for t in read_pack(pack).plan().tensors if t.data is not None and t.data.ndim > 1]
    zeros = 100 * sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    session = onnxruntime.InferenceSession(original, providers=["CPUExecutionProvider"])
    print(f"{network}, {name} {' '.join(changes)}, seed {seed}, {minutes:.1f} CPU minutes")
    print(f"  {original.stat().st_size:,} to {pack.stat().st_size:,} bytes, {zeros:.1f} % of the weights 0")
    for part in ("validation", "test"):
        with np.load(folder / f"{part}.npz") as stored:
            images, labels = stored["x"], stored["y"]
        before = np.concatenate(
            [session.run(None, {"image": i[None].transpose(0, 3, 1, 2).astype(np.float32)})[0] for i in images]
        )
        after, macs = _in_runtime(pack, images, result)
        right = [100 * float((scores.argmax(1) == labels).mean()) for scores in (before, after)]
        print(f"  {part}: {right[0]:.2f} % before, {right[1]:.2f} % as .pack, {macs:,.0f} MACs", flush=True)
    print(*(f"  {note}" for note in result.report.notes if "gate" in note or "exit" in note), sep="\n")


def _in_runtime(pack: Path, images: np.ndarray, result: edgecompress.Result) -> tuple[np.ndarray, float]:
    """Scores [n, classes], and the multiply-accumulates of a sample in the mean: fewer where it leaves early."""
    model = edgecompress_runtime.load(pack)
    x = model.inputs[0]
    values = np.clip(np.round(images / x.scale[0]) + x.zero, -128, 127).astype(np.int8)
    outputs = [model(sample[None]) for sample in values]
    exits = result.report.exits
    if exits is None:
        return np.concatenate(outputs), next(s.macs for s in reversed(result.report.stages) if s.macs is not None)
    scores, taken = zip(*outputs)
    return np.concatenate(scores), float(np.mean([exits.macs[int(exit) - 1] for exit in np.ravel(taken)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("network", choices=["resnet20", "vgg"])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.recipe, arguments.network, arguments.set, arguments.seed)
