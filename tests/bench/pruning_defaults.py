"""Which criterion and which allocation prune best, on seven networks: what the recipe's defaults were chosen by.

    EDGECOMPRESS_BENCH_DATA=FOLDER OMP_NUM_THREADS=1 python tests/bench/pruning_defaults.py channels|weights
        [--seeds 0 1 ..] [--epochs N] [--left SHARE] [--only NAME] [--work FOLDER]

FOLDER holds models/ic_resnet8.onnx (mlcommons/tiny) and data/datasets.py with
`load("cifar10" | "mnist", "train" | "test", limit)`. Each network of pruning_networks.py is trained once for each seed
(kept in --work), pruned to SHARE of its multiply-accumulates (0.5) or of its weights (0.05) and trained for N epochs
(1) on 5,000 images. Scores are of 2,000 other training images (which ResNet-8 was trained on before): what is chosen is
never chosen on test images. Prints, for each choice and network, the mean over seeds of points lost against the network
before pruning, the largest standard deviation of a column, and the mean of all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import pruning_networks as networks
import torch

from edgecompress.compress.prune.prune_weights import prune_weights
from edgecompress.recipe import Prune
from edgecompress.train import Session
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.normalised import refresh_statistics, with_batchnorm

CHOICES = {
    "channels": [
        ("random", "uniform"),
        *(("l2", a) for a in ("uniform", "global", "lamp", "capacity")),
        *(("fisher", a) for a in ("uniform", "global", "lamp", "capacity")),
        *(("taylor", a) for a in ("uniform", "global")),
        *(("activation", a) for a in ("uniform", "global")),
    ],
    "weights": [
        ("random", "uniform"),
        *(("l2", a) for a in ("uniform", "global", "lamp", "sensitivity")),
        *(("fisher", a) for a in ("uniform", "global", "lamp")),
        *(("taylor", a) for a in ("uniform", "global", "lamp")),
        *(("movement", a) for a in ("uniform", "global")),
    ],
}


def main() -> int:
    options = _arguments()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    chosen = [n for n in networks.NETWORKS if options.only in (None, n.name)]
    began, lost = time.process_time(), {choice: [] for choice in CHOICES[options.what]}
    for network in chosen:
        found: dict[tuple[str, str], list[float]] = {choice: [] for choice in lost}
        for seed in options.seeds:
            base = networks.trained(network, seed, options.work)
            before = base.before("held out")
            print(f"# {network.name}, seed {seed}: {before:.2f} % before pruning", flush=True)
            for choice, values in found.items():
                values.append(before - _score(options, base, choice, seed))
                print(f"#   {' '.join(choice)}: {values[-1]:.2f} points lost", flush=True)
        for choice, values in found.items():
            lost[choice].append(values)
    print(f"| {options.what}, {options.left:.0%} left | {' | '.join(n.name for n in chosen)} | mean |")
    print("|" + "---|" * (len(chosen) + 2))
    for choice, rows in sorted(lost.items(), key=lambda item: statistics.mean(map(statistics.mean, item[1]))):
        cells = [f"{statistics.mean(values):.2f}" for values in rows]
        mean = statistics.mean(map(statistics.mean, rows))
        print(f"| {', '.join(choice)} | {' | '.join(cells)} | **{mean:.2f}** |")
    if len(options.seeds) > 1:
        spread = [max(statistics.stdev(rows[i]) for rows in lost.values()) for i in range(len(chosen))]
        print(f"| largest deviation over seeds | {' | '.join(f'{s:.2f}' for s in spread)} | |")
    print(f"{(time.process_time() - began) / 60:.1f} CPU minutes")
    return 0


def _score(options: argparse.Namespace, base: networks.Trained, choice: tuple[str, str], seed: int) -> float:
    criterion, allocation = choice
    network, data, training = base.network, base.data["train"], networks.training(options.epochs)
    if options.what == "channels":
        settings = Prune(macs=options.left, criterion=criterion, allocation=allocation)
        return base.score(networks.without_channels(base, settings, training, seed).module, "held out")
    settings = Prune(sparsity=1 - options.left, criterion=criterion, allocation=allocation)
    model, session = with_batchnorm(base.model, data), Session(seed=seed, log=lambda line: None)
    found = prune_weights(model, settings, data=data, training=training, loss=network.task, session=session)
    return base.score(TorchModel(refresh_statistics(found.model, data), logits=network.classes), "held out")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=CHOICES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--left", type=float, default=None)
    parser.add_argument("--only", choices=[n.name for n in networks.NETWORKS])
    parser.add_argument("--work", type=Path, default=Path("pruning_networks"))
    options = parser.parse_args()
    options.left = options.left or {"channels": 0.5, "weights": 0.05}[options.what]
    return options


if __name__ == "__main__":
    raise SystemExit(main())
