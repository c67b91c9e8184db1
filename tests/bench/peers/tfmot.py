"""TensorFlow Model Optimization's pruning and clustering beside ours: bytes on disk, accuracy, latency.

    EDGECOMPRESS_BENCH_DATA=FOLDER python tests/bench/peers/tfmot.py [--epochs N] [--finetune N] [--work FOLDER]

FOLDER has data/datasets.py (CIFAR-10). A network like ResNet-8 is trained in Keras; TFMOT prunes it by half and by four
fifths and clusters it to 32 and to 16 values, each in N epochs; TensorFlow's converter makes its int8 .tflite. Then
edgecompress converts (a) the same TFMOT models, and (b) the network as it was, pruned and clustered by edgecompress in
as many epochs from the same weights. Seed 0 in both. At last TFMOT trains the network for int8 (quantize_model), and
both converters' predictions are compared. --work keeps the trained models for the next run.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

KINDS = ("pruned50", "pruned80", "clustered32", "clustered16")
RECIPES = {
    "pruned50": "[prune]\nsparsity = 0.5\n", "pruned80": "[prune]\nsparsity = 0.8\n",
    "clustered32": "[cluster]\nbits = 5\nepochs = {n}\n", "clustered16": "[cluster]\nbits = 4\nepochs = {n}\n",
}  # fmt: skip
TRAINING = '[train]\noptimizer = "adam"\nlr = 0.001\nepochs = {n}\nvalidation = 0.0\nprecision = "mixed"\n'
BATCH, SHARE, POINTS, AGREEMENT = 128, 0.5, 0.2, 99.5


def data(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    sys.path.insert(0, str(folder / "data"))
    import datasets

    images, labels = datasets.load("cifar10", split)
    return images.astype(np.float32) / 255, labels


def train_for_int8(folder: Path, work: Path, epochs: int) -> None:
    """In a process of its own: work/aware.h5, aware.tflite, from work/base.h5."""
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

    tf.config.threading.set_intra_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    x, y = data(folder, "train")
    net = tfmot.quantization.keras.quantize_model(keras.models.load_model(work / "base.h5"))
    schedule = keras.optimizers.schedules.CosineDecay(1e-4, epochs * len(x) // BATCH)
    net.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    net.fit(x, y, BATCH, epochs, verbose=2, shuffle=True)
    net.save(work / "aware.h5")
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (work / "aware.tflite").write_bytes(converter.convert())


def train(folder: Path, work: Path, epochs: int, finetune: int) -> None:
    """In a process of its own, with TensorFlow: work/NAME.h5, NAME.tflite, NAME.npy (classes in float)."""
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

    tf.config.threading.set_intra_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    (x, y), (xt, _) = data(folder, "train"), data(folder, "test")
    layers = keras.layers

    def block(z: object, width: int, stride: int) -> object:
        short = z if stride == 1 else layers.Conv2D(width, 1, strides=stride, use_bias=False)(z)
        z = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(z)
        z = layers.ReLU()(layers.BatchNormalization()(z))
        z = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same", use_bias=False)(z))
        return layers.ReLU()(layers.Add()([z, short]))

    image = keras.Input((32, 32, 3), name="image")
    z = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(image)))
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        z = block(z, width, stride)
    base = keras.Model(image, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(z)))

    def fit(net: object, n: int, rate: float, *callbacks: object) -> None:
        schedule = keras.optimizers.schedules.CosineDecay(rate, n * len(x) // BATCH)
        net.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
        net.fit(x, y, BATCH, n, verbose=2, shuffle=True, callbacks=list(callbacks))

    def save(name: str, net: object, stripped: object) -> None:
        net.save(work / f"{name}.h5")
        np.save(work / f"{name}.npy", stripped.predict(xt, 500, verbose=0).argmax(1))
        converter = tf.lite.TFLiteConverter.from_keras_model(stripped)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[i : i + 1]] for i in range(500))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        (work / f"{name}.tflite").write_bytes(converter.convert())

    fit(base, epochs, 2e-3)
    save("base", base, base)
    steps = finetune * len(x) // BATCH
    for share in (50, 80):
        schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, share / 100, 0, int(0.7 * steps), frequency=20)
        net = tfmot.sparsity.keras.prune_low_magnitude(keras.models.clone_model(base), pruning_schedule=schedule)
        tfmot.sparsity.keras.strip_pruning(net).set_weights(base.get_weights())
        fit(net, finetune, 1e-3, tfmot.sparsity.keras.UpdatePruningStep())
        save(f"pruned{share}", net, tfmot.sparsity.keras.strip_pruning(net))
    for count in (32, 16):
        copy = keras.models.clone_model(base)
        copy.set_weights(base.get_weights())
        start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
        net = tfmot.clustering.keras.cluster_weights(copy, number_of_clusters=count, cluster_centroids_init=start)
        fit(net, finetune, 1e-4)
        save(f"clustered{count}", net, tfmot.clustering.keras.strip_clustering(net))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--finetune", type=int, default=2)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--train", choices=["all", "int8"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if not folder:
        print(f"skipped: EDGECOMPRESS_BENCH_DATA is not set\n\n{__doc__}")
        return 0
    if options.train == "all":
        train(Path(folder), options.work, options.epochs, options.finetune)
    elif options.train:
        train_for_int8(Path(folder), options.work, options.finetune)
    if options.train:
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        settings = {"TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        for what, names in (("all", ("base", *KINDS)), ("int8", ("aware",))):
            if all((work / f"{name}.tflite").exists() for name in names):
                continue
            command = [
                sys.executable,
                __file__,
                "--train",
                what,
                "--work",
                str(work),
                "--epochs",
                str(options.epochs),
                "--finetune",
                str(options.finetune),
            ]
            start = time.perf_counter()
            subprocess.run(command, env=os.environ | settings, check=True)
            print(f"Keras and TFMOT, {what}: {(time.perf_counter() - start) / 60:.1f} minutes")
        return compare(Path(folder), work, options.finetune) | compare_int8(Path(folder), work)


def compare_int8(folder: Path, work: Path) -> int:
    """The same quantization-aware model, by TensorFlow's converter and by ours."""
    import measure

    import edgecompress

    (x, _), (xt, yt) = data(folder, "train"), data(folder, "test")
    made = edgecompress.convert(
        work / "aware.h5",
        "android",
        calib=x[:500],
        eval={"x": xt, "y": yt},
        formats=["tflite", "pack"],
        output=work / "aware-converted",
    )
    files = {"TensorFlow": work / "aware.tflite", "ours": made.artifacts["tflite"]}
    images = xt.transpose(0, 3, 1, 2)
    classes = {by: _predictions(measure.tflite_runner(file), images) for by, file in files.items()}
    same = 100 * np.mean(classes["ours"] == classes["TensorFlow"])
    for by, file in files.items():
        accuracy = 100 * np.mean(classes[by] == yt)
        print(f"trained for int8, {by}: {file.stat().st_size:,} bytes, {accuracy:.2f} % in LiteRT")
    print(
        f"trained for int8, .pack: {made.artifacts['pack'].stat().st_size:,} bytes; *.tflite: {same:.2f} % of the "
        f"predictions are those of TensorFlow's; {'; '.join(made.report.notes)}"
    )
    return int(same < AGREEMENT)


def _predictions(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    return np.array([run(image).argmax() for image in images])


def compare(folder: Path, work: Path, finetune: int) -> int:
    import measure
    from rich.console import Console
    from rich.table import Table

    import edgecompress
    import edgecompress_runtime

    (x, y), (xt, yt) = data(folder, "train"), data(folder, "test")
    test = {"x": xt, "y": yt}
    table = Table("network", "made by", "file", "bytes", "gzip", "top-1 %", "same as float", "us", title="CIFAR-10")
    failed = 0
    sample = xt[0].transpose(2, 0, 1)

    def row(name: str, by: str, file: Path, accuracy: float, same: float | None, latency: float) -> None:
        packed = len(gzip.compress(file.read_bytes(), 9))
        agreed = "" if same is None else f"{same:.2f} %"
        table.add_row(
            name,
            by,
            file.suffix,
            f"{file.stat().st_size:,}",
            f"{packed:,}",
            f"{accuracy:.2f}",
            agreed,
            f"{latency:.0f}",
        )

    for name in KINDS:
        peer = work / f"{name}.tflite"
        invoke = measure.tflite_invoker(peer, sample)
        theirs = measure.top1(measure.tflite_runner(peer), xt.transpose(0, 3, 1, 2), yt)
        recipe = work / "ours.toml"
        recipe.write_text((TRAINING + RECIPES[name]).format(n=finetune))
        for by, folder_, source, arguments in (
            ("TFMOT, then ours", "converted", work / f"{name}.h5", {"calib": x[:500]}),
            ("ours alone", "ours", work / "base.h5", {"train": {"x": x, "y": y}, "recipe": recipe}),
        ):
            formats = ["pack", "onnx", "tflite"]
            made = edgecompress.convert(
                source, "linux-x86", eval=test, formats=formats, output=work / f"{name}-{folder_}", **arguments
            )
            model = edgecompress_runtime.load(made.artifacts["pack"])
            model(xt[:1])
            ours, latency, _ = measure.latency_ratio(lambda: model(xt[:1]), invoke)  # noqa: B023
            if by.startswith("TFMOT"):
                row(name, "TFMOT", peer, theirs, None, latency)
                classes = np.load(work / f"{name}.npy")
                float_ = made.report.achieved.float_value
                same = 100 * np.mean(_classes(source, xt) == classes)
            for artifact in made.report.artifacts:
                value = min(c.value for c in artifact.checks if c.samples == len(yt))
                file = made.directory / artifact.path
                us = ours if artifact.format == "pack" else float("nan")
                row(name, by, file, value, same if by.startswith("TFMOT") else None, us)
                needed = by.startswith("TFMOT") and artifact.format == "pack" and name in ("pruned80", "clustered16")
                if needed:
                    small = file.stat().st_size <= SHARE * peer.stat().st_size
                    failed += not (small and value >= theirs - POINTS and same == 100.0)
            if by.startswith("TFMOT"):
                print(f"{name}: float {float_:.2f} %, predictions as TFMOT's stripped model: {same:.2f} %", flush=True)
    Console(width=110).print(table)
    return 1 if failed else 0


def _classes(source: Path, images: np.ndarray) -> np.ndarray:
    """What the model computes in float as we load it."""
    from edgecompress.evaluate.interpreters import OnnxRuntime
    from edgecompress.ingest import load

    model = load(source).model
    (scores,) = OnnxRuntime(model).run({model.graph.inputs[0].name: images.transpose(0, 3, 1, 2)})
    return scores.argmax(1)


if __name__ == "__main__":
    sys.exit(main())
