"""Ablation: ST-Diff without each of its parts, at equal budgets, on the same masks.

Each file of config/ablation changes one aspect of a run's configuration. Stages 1 and 2 are trained
(a shared stage 1 once), images are generated from the masks of one plan with three generation
seeds, and measured: KID to real test images, mask Dice of a segmenter trained on real images only,
balanced accuracy of echo pattern and posterior features against the caption, and the change outside
the gate compared with stage 1 from the same noise. Tables, autoencoder and segmenter are the run's.
A stopped ablation resumes with the same command.

    make ablation DATA=FOLDER        makes the run first
    python bench/ablation.py --run results/ablation
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import yaml

from stdiff.config.generator import GateConfig
from stdiff.config.run import parse_config
from stdiff.corpus.plan import write_plan
from stdiff.diffusion.decoupling import soft_gates
from stdiff.diffusion.pipeline import Generator
from stdiff.downstream.images import LabelledImages, labelled_images
from stdiff.downstream.metrics import case_metrics
from stdiff.downstream.networks import image_features, load_segmenter, segment
from stdiff.downstream.segment import segmenter_config
from stdiff.evaluation.adherence import balanced_accuracy, derived_agreement
from stdiff.evaluation.fidelity import kid
from stdiff.filtering.scores import SEEN_TERMS
from stdiff.runtime.files import sha256_bytes, write_text
from stdiff.runtime.randomness import generator, integer_seed
from stdiff.table.cases import images_of, read_cases
from stdiff.table.cohort import Cohort, CohortFiles, read_splits
from stdiff.table.label_budget import LabelBudget
from stdiff.training.stages import train_finetune, train_pretrain

ROOT = Path(__file__).parents[1]
SEGMENTER = "unet_resnet18"
# Without validation, so that all models train for the same number of images.
LAST_WEIGHTS = {"training": {"finetune": {"validate_every_images": None}}}


def merged(base, change):
    """Nested dictionaries, the second over the first."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return base | {key: merged(base.get(key), value) for key, value in change.items()}


def trained(config, run, labels):
    """The model folder of stage 2, trained if missing."""
    home = run / "ablation"
    options = {
        "cohort": CohortFiles(
            sorted((run / "cases").glob("*.parquet")), run / "splits.parquet", config.split.fold
        )
    }
    stage_1 = json.dumps(
        [
            config.training.pretrain.model_dump(mode="json"),
            config.model.model_dump(mode="json", exclude={"gate", "condition"}),
        ]
    )
    if config.training.pretrain.trains == "controlnet on black masks":
        stage_1 += config.model.condition.model_dump_json()
    base = home / f"stage1-{sha256_bytes(stage_1.encode())[:12]}"
    if not base.exists():
        state = base.with_name(f"{base.name}-state")
        autoencoder = run / "autoencoder"
        train_pretrain(config, autoencoder=autoencoder, out=base, state=state, **options)
    model = home / config.run
    if not model.exists():
        state = home / f"{config.run}-state"
        train_finetune(config, base=base, labels=labels, out=model, state=state, **options)
    return model


def generated(model, plan, seed, sampler, free=False):
    """Images of all rows of a plan; with ``free`` those of stage 1 from the same noise."""
    images = []
    if free:
        none = {"mask_guidance": 0.0, "text_guidance": 0.0, "guidance_from": 0.0}
        sampler = sampler.model_copy(update=none)
    for start in range(0, len(plan), sampler.batch):
        rows = plan.iloc[start : start + sampler.batch]
        seeds = [integer_seed(seed, "ablation", start + k) for k in range(len(rows))]
        images.append(
            model.generate(images_of(rows["mask"]), list(rows["caption"]), seeds, sampler)
        )
    return np.concatenate(images)


def adherence(rows, images, masks):
    """Balanced accuracy of each feature that is visible in the image."""
    found = derived_agreement(rows, LabelledImages(images, masks), rows["case_id"].to_numpy())
    return {name: balanced_accuracy(found[name]) for name in SEEN_TERMS}


def reference(config, run):
    """The segmenter trained on real images only, the test cases, and their images."""
    weights = run / f"segment/{SEGMENTER}/real-100/seed0.safetensors"
    table = read_cases(sorted((run / "cases").glob("*.parquet")))
    test = Cohort(table, read_splits(run / "splits.parquet", config.split.fold)).lesions()
    network = load_segmenter(segmenter_config(config, SEGMENTER), weights)
    return network, test, labelled_images(test, config.image.size_px)


def measure(config, model_folder, plan, run, seed):
    """All metrics of one model and generation seed."""
    model = Generator.load(model_folder)
    images = generated(model, plan, seed, config.sampler)
    masks = images_of(plan["mask"])
    network, _, test_images = reference(config, run)
    settings = config.evaluation
    distance, _, _ = kid(
        image_features(network, images),
        image_features(network, test_images.images_NHW),
        settings.kid_subset_size,
        settings.kid_subsets,
        generator(seed, "ablation KID"),
    )
    dice = case_metrics(segment(network, images), masks)["dice"].mean()
    outside = 1 - soft_gates(masks, GateConfig())[:, 0].numpy()
    base = generated(model, plan, seed, config.sampler, free=True)
    change = (np.abs(images.astype(float) - base) * outside).sum() / outside.sum()
    return {
        "kid": distance,
        "mask_dice": float(dice),
        **adherence(plan, images, masks),
        "background_change_grey": float(change),
    }


def ceiling(config, run):
    """The metrics of real test images, where defined."""
    network, test, images = reference(config, run)
    dice = case_metrics(segment(network, images.images_NHW), images.masks_NHW)["dice"].mean()
    return {
        "mask_dice": float(dice),
        **adherence(test, images.images_NHW, images.masks_NHW),
    }


def table_of(results, real):
    """The results in Markdown: mean over generation seeds, and their range."""
    names = {
        "kid": "KID",
        "mask_dice": "mask Dice",
        "echo_pattern": "echo pattern",
        "posterior_features": "posterior features",
        "background_change_grey": "background change (grey levels)",
    }
    lines = [f"| | {' | '.join(names.values())} |", "|---" * (len(names) + 1) + "|"]
    for name, seeds in results.items():
        cells = []
        for key in names:
            values = [figures[key] for figures in seeds]
            digits = 1 if key == "background_change_grey" else 3
            cells.append(
                f"{np.mean(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    cells = [f"{real[key]:.3f}" if key in real else "" for key in names]
    return "\n".join([*lines, f"| real test images | {' | '.join(cells)} |"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="its tables and autoencoder")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3, help="generation seeds")
    parser.add_argument("--labels", type=LabelBudget.parse, default="100", help="label budget")
    parser.add_argument("--only", nargs="*", help="names of files in config/ablation")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    values = yaml.safe_load((o.run / "config.yaml").read_text())
    plan_file = o.run / "ablation" / "plan.parquet"
    base = parse_config(values)
    if not plan_file.exists():
        write_plan(
            CohortFiles(
                sorted((o.run / "cases").glob("*.parquet")),
                o.run / "splits.parquet",
                base.split.fold,
            ),
            plan_file,
            corpus="ablation",
            weights={"bank": 1},
            labels=o.labels,
            count=o.images,
            seed=base.seed,
        )
    plan = read_cases([plan_file])
    results = {}
    for file in sorted((ROOT / "config" / "ablation").glob("*.yaml")):
        if o.only and file.stem not in o.only:
            continue
        change = merged(yaml.safe_load(file.read_text()), LAST_WEIGHTS)
        config = parse_config(merged(values, change))
        model = trained(config, o.run, o.labels)
        results[file.stem] = []
        for seed in range(o.seeds):
            record = o.run / "ablation" / f"{file.stem}-{seed}.json"
            if not record.exists():
                figures = measure(config, model, plan, o.run, seed)
                write_text(record, json.dumps(figures, indent=1))
            results[file.stem].append(json.loads(record.read_text()))
        print(f"{file.stem}: {results[file.stem]}", flush=True)
    print(table_of(results, ceiling(base, o.run)))


if __name__ == "__main__":
    main()
