"""Channels removed by Torch-Pruning and by us, from the same weights, and trained by the same loop.

    pip install torch-pruning==1.6.1
    EDGECOMPRESS_BENCH_DATA=FOLDER OMP_NUM_THREADS=1 python tests/bench/peers/channel_pruning.py
        [--seeds 0 1 2] [--left 0.5 0.7] [--epochs N] [--only NAME] [--work FOLDER]

FOLDER holds data/datasets.py as pruning_defaults.py says. Each network of pruning_networks.py, trained once for each
seed, loses channels until the share LEFT of its multiply-accumulates is left (counted in both ONNX exports by the same
function), and is trained for N epochs (1) on 5,000 images, by our training loop with the same settings and order of
samples. Torch-Pruning prunes the module with the BatchNormalization that it was trained with, by L2 norms and by Taylor
scores of groups (G. Fang et al., "DepGraph", 2023), each uniform and global; ours, which reads the ONNX export without
it, prunes by the recipe's defaults. Scores are of 2,000 test images, which nothing is chosen on: the column "its best"
is Torch-Pruning's best of four on those very images. Exits 1 where ours is below the best by more than the larger
deviation over seeds, or 1 point with one seed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
import pruning_networks as networks

from edgecompress.analysis.statistics import statistics as costs
from edgecompress.ingest import load
from edgecompress.recipe import Prune

METHODS = [(name, everywhere) for name in ("L2", "Taylor") for everywhere in (False, True)]
SCORED = 1000  # images that give the gradients of Taylor scores
STEPS = 9  # of the search for the ratio that leaves the share


def main() -> int:
    options = _arguments()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    began, failed = time.process_time(), 0
    titles = [f"{name}, {'global' if everywhere else 'uniform'}" for name, everywhere in METHODS]
    print(f"| network, MACs left | before | ours | its best | {' | '.join(titles)} |")
    print("|" + "---|" * (len(titles) + 4), flush=True)
    for network in (n for n in networks.NETWORKS if n.module and options.only in (None, n.name)):
        bases = [networks.trained(network, seed, options.work) for seed in options.seeds]
        before = [base.before("test") for base in bases]
        for left in options.left:
            ours = [_ours(base, left, options.epochs, seed) for base, seed in zip(bases, options.seeds)]
            theirs = [
                [_theirs(base, left, method, options, seed) for base, seed in zip(bases, options.seeds)]
                for method in METHODS
            ]
            best = max(theirs, key=statistics.mean)
            slack = max(_deviation(ours), _deviation(best)) if len(ours) > 1 else 1.0
            failed += statistics.mean(ours) < statistics.mean(best) - slack
            cells = [_cell(values) for values in (before, ours, best, *theirs)]
            print(f"| {network.name}, {left:.0%} | {' | '.join(cells)} |", flush=True)
    print(f"{(time.process_time() - began) / 60:.1f} CPU minutes; Torch-Pruning {torch_pruning.__version__}")
    return int(failed > 0)


def _ours(base: networks.Trained, left: float, epochs: int, seed: int) -> float:
    found = networks.without_channels(base, Prune(macs=left), networks.training(epochs), seed)
    assert found.share <= left + 1e-9
    return base.score(found.module, "test")


def _theirs(
    base: networks.Trained, left: float, method: tuple[str, bool], options: argparse.Namespace, seed: int
) -> float:
    """The first ratio, from below, that leaves at most the share."""
    low, high = 0.0, 0.95
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _share(base, _pruned(base, method, middle)) > left else (low, middle)
    module = _pruned(base, method, high)
    exact = _exact_share(base, module, options.work)
    if exact > left + 0.02:
        print(f"# {base.network.name}: Torch-Pruning leaves {exact:.1%}, not {left:.0%}", flush=True)
    networks.fit(networks.Tuple(module), base.data["train"], base.network, networks.training(options.epochs), seed)
    return base.score(networks.Tuple(module), "test")


def _pruned(base: networks.Trained, method: tuple[str, bool], ratio: float) -> nn.Module:
    name, everywhere = method
    module = copy.deepcopy(base.module).eval()
    batch = base.data["train"].batch(np.arange(SCORED))
    importance = torch_pruning.importance
    heads = {layer: each.heads for each in _attentions(module) for layer in (each.q, each.k, each.v)}
    pruner = torch_pruning.pruner.MetaPruner(
        module,
        batch.inputs[0][:1],
        importance=importance.GroupMagnitudeImportance(p=2) if name == "L2" else importance.GroupTaylorImportance(),
        pruning_ratio=ratio,
        max_pruning_ratio=0.875,  # as ours
        ignored_layers=[module.head],
        global_pruning=everywhere,
        num_heads=heads,
    )
    if name == "Taylor":
        output = module(*batch.inputs)
        (F.cross_entropy if base.network.classes else F.mse_loss)(output, batch.labels).backward()
    pruner.step()
    module.zero_grad()
    return module


def _attentions(module: nn.Module) -> Iterator[networks.Attention]:
    return (m for m in module.modules() if isinstance(m, networks.Attention))


def _share(base: networks.Trained, module: nn.Module) -> float:
    return _macs(module, base) / _macs(base.module, base)


def _macs(module: nn.Module, base: networks.Trained) -> int:
    """For one sample."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, networks.Attention):  # queries with keys, and what they give with values
            total += output.shape[1] ** 2 * (layer.q.out_features + layer.v.out_features)
        else:
            total += layer.weight[0].numel() * output.numel()

    layers = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear, networks.Attention))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        module(*base.data["train"].batch(np.arange(1)).inputs)
    for hook in hooks:
        hook.remove()
    return total


def _exact_share(base: networks.Trained, module: nn.Module, work: Path) -> float:
    example, path = base.data["train"].batch(np.arange(1)).inputs, work / "torch_pruning.onnx"
    torch.onnx.export(copy.deepcopy(module).eval(), example, path, dynamo=False, input_names=["x"])
    return costs(load(path).model).macs / costs(base.model).macs


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _cell(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f}" + (f" +- {_deviation(values):.2f}" if len(values) > 1 else "")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--left", type=float, nargs="+", default=[0.5, 0.7])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--only", choices=[n.name for n in networks.NETWORKS])
    parser.add_argument("--work", type=Path, default=Path("pruning_networks"))
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
