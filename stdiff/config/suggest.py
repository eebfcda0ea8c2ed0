"""A configuration that fits the data and the machine, and how long it takes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

from stdiff.config.run import Config, parse_config
from stdiff.runtime.errors import InputError
from stdiff.runtime.machine import Machine

# Images per second on two CPU cores at 64 px with the networks of config/busi_cpu.yaml: images of
# a stage / its seconds in docs/results.md, "Seconds and peak memory by step".
RATES = {"autoencoder": 97, "pretrain": 114, "finetune": 77, "segmenter": 71, "generated": 7.6}
_MEASURED_PX = 64
# Of split.test and split.validation by default.
_TRAINING_FRACTION = 0.7
# Not measured: stage 1 at 256 px in batches of 64 needs more than small GPUs have.
_GPU_MEMORY_MB = 16_000
_FEWEST_MASKS = 110
_FEWEST_LABELS = 20
_GPU_ESTIMATE = "No estimate of the time: no GPU has been measured so far."
_GPU_BASIS = "After the first shard, `stdiff corpus speed` shows the images per second."


@dataclass(frozen=True)
class RawCollection:
    """A raw collection found on disk.

    Attributes:
        path: relative to the data root.
        masks: images with a lesion mask.
        patients: 0 where they are unknown.
        left_out: files and rows that its reader cannot use.
    """

    name: str
    path: str
    images: int
    masks: int
    patients: int = 0
    left_out: int = 0

    def __str__(self) -> str:
        patients = f"{self.patients:,} patients" if self.patients else "patients unknown"
        left_out = f", {self.left_out:,} file(s) left out" if self.left_out else ""
        return f"{self.images:,} images, {self.masks:,} masks, {patients}{left_out}"


_HEAD = """\
# Written by `stdiff init` for $machine. Every key is explained in config/README.md.
#   $command
# $estimate
# $basis
run: $run
seed: 0

data_root: $root
collections:
$collections
"""

_CPU = """
# $size_basis.
image: {size_px: $size}

# Networks of config/busi_cpu.yaml.
model:
  autoencoder: {decoder_channels: 48}
  unet: {channels: [32, 64, 128], layers: 1}

# Images to train on: 30, 60 and 15 passes over some $training training images, $fraction of all; at
# least as many as in config/demo.yaml, at most as in config/busi_cpu.yaml.
training:
  autoencoder: {images: $autoencoder, batch: 32, learning_rate: 2.0e-3}
  pretrain: {images: $pretrain, batch: 32, learning_rate: 8.0e-4$ema}
  finetune:
    images: $finetune
    batch: 32
    learning_rate: 1.0e-3
    ema_decay: 0.99
    validate_every_images: $validate

# As in config/busi_cpu.yaml.
sampler: {precision: bfloat16, batch: 50}
masks: {compared: $compared}
corpus: {count: 5500, shard_size: 550}

# The share of synthetic images is chosen on validation lesions. 10 % are $few images.
segmentation:
  labels: $budgets
  arms:
    real: {kind: real}
    mixed_quarter: {kind: mixed, synthetic_share: 0.25}
    mixed_half: {kind: mixed}
  seeds: 3
  training:
    images: 10240
    batch: 16
    learning_rate: 1.0e-3
    precision: bfloat16
    validate_every_images: 2560
$kid"""

_GPU = """
# All sizes and budgets below are those of config/scratch256.yaml: a guess, not run so far.
image: {size_px: 256}

model:
  autoencoder: {latent_channels: 8, decoder_channels: 64, decoder_blocks: [3, 3, 1]}
  unet: {channels: [64, 128, 256, 256], layers: 2, heads: 8}
  text: {width: 128, layers: 4, heads: 8}

training:
  autoencoder: {images: 64000, batch: 32, learning_rate: 1.0e-3, precision: bfloat16}
  pretrain:
    images: 640000
    batch: 64
    learning_rate: 3.0e-4
    warmup_images: 6400
    ema_decay: 0.999
    precision: bfloat16
    compile: true
    checkpoint_every_images: 64000
  finetune:
    images: 320000
    batch: 64
    learning_rate: 3.0e-4
    warmup_images: 6400
    ema_decay: 0.999
    precision: bfloat16
    compile: true
    checkpoint_every_images: 32000
    validate_every_images: 32000

sampler: {steps: 20, guidance_from: 0, batch: 50}

corpus: {count: 2000, shard_size: 500}

# Percent of the labels; 10 % are $few images, and at least 20 are trained on.
segmentation:
  labels: $labels
  seeds: 3
  training: {images: 64000, batch: 16, learning_rate: 1.0e-3}
$kid"""

_KID = """
# Less than half of the test images.
evaluation: {kid_subset_size: $subset}
"""


def suggest_config(
    found: Sequence[RawCollection],
    machine: Machine,
    root: Path,
    out: Path,
    *,
    run: str,
    size_px: int | None = None,
) -> tuple[str, str, str]:
    """A commented configuration, the command that runs it, and an estimate of the time.

    Args:
        found: the collections to use.
        machine: a GPU with enough memory gets the values of ``config/scratch256.yaml``.
        root: data root.
        out: where the text will be written; named in the command.
        run: name of the run.
        size_px: side of the images; the machine decides by default.

    Raises:
        InputError: too few masks to train and test on.
        ConfigError: a name or size that no configuration may have.
    """
    masks = sum(one.masks for one in found)
    if masks < _FEWEST_MASKS:
        raise InputError(
            f"{root}: {masks} lesion masks are too few to train, validate and test on; add "
            f"annotated images, at least {_FEWEST_MASKS} in all"
        )
    on_gpu = machine.gpu_memory_mb >= _GPU_MEMORY_MB and size_px in (None, 256)
    resources = " --resources gpu=1" if machine.gpu else ""
    command = f"snakemake --cores {machine.cores}{resources} --configfile {shlex.quote(str(out))}"
    lines = (f"  {one.name}: {{path: {_quoted(one.path)}}}  # {one}" for one in found)
    values = _values(found, masks, size_px or _MEASURED_PX) | {
        "machine": str(machine),
        "command": command,
        "run": run,
        "root": _quoted(str(root)),
        "collections": "\n".join(lines),
    }
    template = Template(_HEAD + (_GPU if on_gpu else _CPU))
    config = parse_config(yaml.safe_load(template.substitute(values, estimate="", basis="")))
    estimate, basis = (_GPU_ESTIMATE, _GPU_BASIS) if on_gpu else _estimate(config)
    text = template.substitute(values, estimate=estimate, basis=basis)
    return text, command, f"{estimate}\n{basis}"


def _quoted(text: str) -> str:
    """A YAML string; JSON's escapes of letters beyond 16 bits are none in YAML."""
    return json.dumps(text, ensure_ascii=False)


def _values(found: Sequence[RawCollection], masks: int, size_px: int) -> dict[str, object]:
    training = round(_TRAINING_FRACTION * sum(one.images for one in found))
    few = int(_TRAINING_FRACTION * masks / 10)
    finetune = _budget(15 * training, 1920, 19200)
    pretrain = _budget(60 * training, 3200, 80000)
    # Less than half of the test images, which are compared with the other half.
    subset = min(100, masks // 11 // 10 * 10)
    basis = "64 px: what two cores train in two hours (config/busi_cpu.yaml)"
    return {
        "size": size_px,
        "size_basis": basis
        if size_px == _MEASURED_PX
        else f"Chosen by hand; {_MEASURED_PX} px were measured",
        "training": f"{training:,}",
        "fraction": f"{100 * _TRAINING_FRACTION:.0f} %",
        "autoencoder": _budget(30 * training, 3200, 38400),
        "pretrain": pretrain,
        # With fewer steps the default average would still hold the first weights.
        "ema": ", ema_decay: 0.99" if pretrain < 32 * 1000 else "",
        "finetune": finetune,
        "validate": finetune // 6 // 32 * 32,
        "compared": min(400, masks * 3 // 10),
        "labels": "[10, 100]" if few >= _FEWEST_LABELS else "[100]",
        "budgets": "[40 cases, 10]" if few >= _FEWEST_LABELS else "[40 cases, 100]",
        "few": few,
        "kid": "" if subset == 100 else Template(_KID).substitute(subset=subset),
    }


def _budget(images: int, least: int, most: int) -> int:
    """Images to train on, in whole batches of 32."""
    return min(max(images, least), most) // 32 * 32


def estimated_hours(config: Config) -> float:
    """Hours on two CPU cores; the time of an image is taken as proportional to its pixels."""
    budgets = len(config.segmentation.labels)
    trainings = budgets * config.segmentation.seeds * len(config.segmentation.trainings)
    autoencoder = config.training.autoencoder
    images = {
        "autoencoder": autoencoder.images if autoencoder else 0,
        "pretrain": config.training.pretrain.images,
        "finetune": budgets * config.training.finetune.images,
        "segmenter": trainings * config.segmentation.training.images,
        "generated": budgets * config.corpus.count,
    }
    seconds = sum(count / RATES[step] for step, count in images.items())
    return seconds / 3600 * (config.image.size_px / _MEASURED_PX) ** 2


def _estimate(config: Config) -> tuple[str, str]:
    rates = [rate for step, rate in RATES.items() if step != "generated"]
    pixels = "" if config.image.size_px == _MEASURED_PX else ", time proportional to pixels"
    return (
        f"About {estimated_hours(config):.1f} hours, by rates measured on two cores at "
        f"{_MEASURED_PX} px{pixels}:",
        f"{min(rates)} to {max(rates)} training images and {RATES['generated']} generated images "
        "per second (docs/results.md).",
    )
