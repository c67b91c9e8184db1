"""What weights of few bits cost in accuracy and save in a .pack: int8, 16 clusters, int4, ternary and binary.

    EDGECOMPRESS_BENCH_DATA=FOLDER OMP_NUM_THREADS=1 python tests/bench/few_bits.py
        [--networks NAME ..] [--seeds 0 1 ..] [--epochs N] [--on "held out"|test] [--work FOLDER] [RECIPE_KEY=VALUE ..]

FOLDER as in pruning_defaults.py. Each network of pruning_networks.py (the plain CNN and the residual network) is
trained once for each seed (kept in --work) and converted for cortex-m4: int8 and int4 without training, and all but
int8 with N epochs (4) on 5,000 images, distilled from the float network. The first and the last layer are int8.
Settings are chosen with --on "held out", 2,000 other training images; the table of docs/TRAINING.md is of the 2,000
test images. Prints top-1 and the bytes of the .pack.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pruning_networks as networks
import torch

import edgecompress

LR = 0.01  # chosen on held-out images of the residual network, after one epoch, from 0.003, 0.01 and 0.02
RECIPES = {
    "int8, not trained": {},
    "16 clusters": {"cluster": {"bits": 4, "epochs": 1}},
    "int4, not trained": {"quantize": {"weights": "int4"}},
    "int4": {"quantize": {"weights": "int4", "epochs": 1}},
    "ternary": {"quantize": {"weights": "ternary", "epochs": 1}},
    "binary": {"quantize": {"weights": "binary", "epochs": 1}},
}
LOADERS = {"plain CNN": "mnist", "residual": "cifar10"}
PARTS = {"train": (0, networks.TRAIN), "held out": (networks.TRAIN, networks.TRAIN + networks.HELD_OUT)}


def main() -> int:
    options = arguments()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    for network in (n for n in networks.NETWORKS if n.name in options.networks):
        x, y = networks.images(LOADERS[network.name])
        rows: dict[str, list[tuple[float, int]]] = {name: [] for name in options.recipes}
        for seed in options.seeds:
            base = networks.trained(network, seed, options.work)
            print(f"# {network.name}, seed {seed}: {base.before(options.on):.2f} % in float", flush=True)
            for name, found in rows.items():
                found.append(converted(base, x, y, recipe(name, seed, options), options.on))
                print(
                    f"{name}: {found[-1][0]:.2f} %, {found[-1][1]:,} B, {time.process_time() - began:.0f} s", flush=True
                )
        print(f"\n| {network.name} | top-1 | bytes |\n|---|---|---|")
        for name, found in rows.items():
            values, sizes = zip(*found)
            print(f"| {name} | {statistics.mean(values):.2f} ({min(values):.2f}) | {sizes[0]:,} |")
    print(f"\n{(time.process_time() - began) / 60:.1f} CPU minutes")
    return 0


def recipe(name: str, seed: int, options: argparse.Namespace) -> dict[str, object]:
    """The recipe of that name, with the settings of the command line."""
    result: dict = {key: dict(value) for key, value in RECIPES[name].items()}
    for section in result.values():
        if "epochs" in section:
            section |= {"epochs": options.epochs, "lr": options.lr}
    train = {"batch": 64, "optimizer": "adam", "validation": 0, "warmup": 0}
    return {"seed": seed, "train": train, "evaluate": {"min_snr": 0}, **result}


def converted(base: networks.Trained, x: np.ndarray, y: np.ndarray, recipe: dict, on: str) -> tuple[float, int]:
    """(top-1, bytes of the .pack) on that part of the images."""
    a, b = PARTS.get(on, (networks.TRAIN + networks.HELD_OUT, len(x)))
    with tempfile.TemporaryDirectory() as folder:
        made = edgecompress.convert(
            base.model, "cortex-m4", train=(x[: networks.TRAIN], y[: networks.TRAIN]), eval=(x[a:b], y[a:b]),
            formats=["pack"], recipe=recipe, output=Path(folder) / "out",
        )  # fmt: skip
        check = made.report.artifacts[0].checks[0]
        assert check.value is not None
        return check.value, made.artifacts["pack"].stat().st_size


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(LOADERS), default=list(LOADERS))
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=LR)
    parser.add_argument("--on", choices=("held out", "test"), default="test")
    parser.add_argument("--work", type=Path, default=Path("/tmp/few_bits"))
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
