"""Run as a process of its own: trains small Keras networks on the digits sample and saves them in a folder.

    python tests/keras_models.py FOLDER 2|3

With each file NAME, NAME.npy: what Keras computes for the first 32 test images. 2: TensorFlow 2's Keras (tf_keras),
with which TensorFlow Model Optimization works; 3: Keras 3.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

DIGITS = Path(__file__).parent.parent / "samples" / "digits"


def main(folder: Path, version: str) -> None:
    os.environ["TF_USE_LEGACY_KERAS"] = "1" if version == "2" else "0"
    if version == "2":
        import tensorflow as tf
        import tensorflow_model_optimization as tfmot
        import tf_keras as keras
    else:
        import keras
    keras.utils.set_random_seed(0)
    train, test = (np.load(DIGITS / f"{name}.npz") for name in ("train", "test"))
    x, y = train["x"].reshape(-1, 8, 8, 1).astype(np.float32), train["y"]
    shown = test["x"].reshape(-1, 8, 8, 1).astype(np.float32)[:32]
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, strides=2, padding="same"),
            layers.Conv2D(16, 1, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )

    def fit(net: object, epochs: int, *callbacks: object) -> object:
        net.compile("adam", "sparse_categorical_crossentropy")
        net.fit(x, y, epochs=epochs, verbose=0, callbacks=list(callbacks))
        return net

    def save(net: object, name: str, shown_by: object = None) -> None:
        net.save(folder / name)
        np.save(folder / f"{name}.npy", (shown_by or net).predict(shown, verbose=0))

    fit(model, 4)
    save(model, f"keras{version}.keras")
    save(model, f"keras{version}.h5")
    if version == "3":
        model.export(folder / "saved3", verbose=False)
        np.save(folder / "saved3.npy", model.predict(shown, verbose=0))
        lambda_ = keras.Sequential([keras.Input((8, 8, 1)), layers.Lambda(lambda v: v * 2), layers.Flatten()])
        lambda_.save(folder / "lambda.keras")
        lambda_.save(folder / "lambda.h5")
        model.save_weights(folder / "only.weights.h5")
        return
    save(model, "saved2")
    sparsity, clustering = tfmot.sparsity.keras, tfmot.clustering.keras
    schedule = sparsity.ConstantSparsity(0.6, 0, frequency=1)
    pruned = fit(sparsity.prune_low_magnitude(model, pruning_schedule=schedule), 1, sparsity.UpdatePruningStep())
    save(pruned, "pruned.h5")
    save(pruned, "pruned.keras")
    start = clustering.CentroidInitialization.KMEANS_PLUS_PLUS
    clustered = fit(clustering.cluster_weights(model, number_of_clusters=16, cluster_centroids_init=start), 1)
    save(clustered, "clustered.h5", clustering.strip_clustering(clustered))
    quantization = tfmot.quantization.keras
    model = keras.models.load_model(folder / "keras2.h5")  # the clustering wrapped the other one's layers
    aware = fit(quantization.quantize_model(model), 1)
    save(aware, "aware.h5")
    save(aware, "aware")
    converter = tf.lite.TFLiteConverter.from_keras_model(aware)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "aware.tflite").write_bytes(converter.convert())
    save(quantization.quantize_annotate_model(model), "annotated.h5")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
