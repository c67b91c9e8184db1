"""A training run that is killed ten times ends with the same bytes as one that is left alone.

    python tests/bench/kill_resume.py [--kills 10] [--seed 0]

Fine-tunes the digits of samples/digits in a process of its own, which gets SIGKILL at a random moment and is started
again with --resume, as often as asked; then it runs to its end. Prints when each kill came and how many epochs were
saved by then. Exits 1 when the final weights differ from those of a run that was never killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EPOCHS = 90


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", nargs=2, metavar=("CHECKPOINT", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*map(Path, options.worker))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = run(folder, "whole")
        wait_for_training(process, folder)
        start = time.perf_counter()
        process.wait()
        whole = time.perf_counter() - start
        print(f"left alone: {whole:.1f} s of training, {digest(folder / 'whole.onnx')}")
        generator = random.Random(options.seed)
        killed = 0
        while killed < options.kills:
            process = run(folder, "killed")
            wait_for_training(process, folder)
            moment = generator.uniform(0, 1.6 * whole / options.kills)  # together well below a whole training
            time.sleep(moment)
            if process.poll() is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            print(f"kill {killed}: {moment:.2f} s into the training; {saved(folder)} of {EPOCHS} epochs saved")
        run(folder, "killed").wait()
        first, second = (digest(folder / f"{kind}.onnx") for kind in ("whole", "killed"))
        print(f"killed {killed} times: {second}: {'the same' if first == second else 'DIFFERENT'}")
        return int(first != second)


def run(folder: Path, kind: str) -> subprocess.Popen[bytes]:
    rooms = [str(ROOT), str(ROOT / "runtime"), str(ROOT / "targets")]
    command = [sys.executable, __file__, "--worker", str(folder / f"{kind}.checkpoint"), str(folder / f"{kind}.onnx")]
    (folder / "training").unlink(missing_ok=True)
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(rooms), "OMP_NUM_THREADS": "1"})


def wait_for_training(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Until the process has loaded everything: kills should hit the training."""
    while not (folder / "training").exists() and process.poll() is None:
        time.sleep(0.005)


def saved(folder: Path) -> int:
    import torch

    path = folder / "killed.checkpoint"
    return len(torch.load(path, weights_only=True)["progress"]["epochs"]) if path.exists() else 0


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def work(checkpoint: Path, output: Path) -> None:
    """One run: from the checkpoint, if it is there, to the trained model."""
    import onnx_ir as ir

    from edgecompress.evaluate.dataset import load_data
    from edgecompress.ingest import load
    from edgecompress.recipe import Preprocess, Train
    from edgecompress.train import Hook, Session, TrainData, train
    from edgecompress.train.module.torch_model import TorchModel

    class Begun(Hook):
        """Loading torch's optimizers takes longer than an epoch."""

        def after_step(self, step: int, total: int) -> None:
            (checkpoint.parent / "training").touch()

    samples = ROOT / "samples" / "digits"
    model = load(samples / "digits.onnx").model
    data = TrainData.from_dataset(load_data(samples / "train.npz", model.graph.inputs, Preprocess()), model)
    module = TorchModel(model, logits=True)
    settings = Train(epochs=EPOCHS, batch=64, lr=0.02, augment="shift", metric="top1")
    history = train(module, data, settings, hooks=[Begun()], session=Session(checkpoint=checkpoint, resume=True))
    ir.save(module.write_back(), output)
    print(json.dumps({"epochs": len(history.epochs), "best": history.best_epoch}))


if __name__ == "__main__":
    sys.exit(main())
