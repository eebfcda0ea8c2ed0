"""Everything measured on one synthetic corpus: fidelity, control, adherence, memorisation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from stdiff.config.run import Config
from stdiff.downstream.images import labelled_images
from stdiff.downstream.networks import image_features, load_segmenter
from stdiff.downstream.segment import segmenter_config
from stdiff.evaluation.adherence import evaluate_adherence
from stdiff.evaluation.control import evaluate_control, mask_groups
from stdiff.evaluation.fidelity import evaluate_fidelity
from stdiff.evaluation.memorisation import evaluate_memorisation
from stdiff.runtime.files import write_text
from stdiff.table.accepted import list_accepted
from stdiff.table.cases import images_of
from stdiff.table.cohort import CohortFiles
from stdiff.table.label_budget import ALL_LABELS, LabelBudget
from stdiff.table.streaming import evenly_spread


def evaluate_corpus(
    config: Config,
    *,
    cohort: CohortFiles,
    corpus: Sequence[Path],
    segmenter: str,
    weights: Path,
    labels: LabelBudget,
    out: Path,
) -> None:
    """Write the measurements of a corpus as JSON.

    Keys: ``encoder``, ``labels``, ``generated`` (number of images), ``accepted`` (those of
    them that the filter accepted), ``evaluated`` (of these at most ``evaluation.images``), and of
    these ``fidelity`` (list of records), ``control``, ``adherence``, ``memorisation``.

    Args:
        config: The run.
        cohort: Real cases and their splits.
        corpus: All shards of the corpus.
        segmenter: A name in ``segmentation.segmenters``.
        weights: Its weights, trained on real training images only (arm ``real``, the greatest
            label budget); both the judge of control and the encoder of fidelity.
        labels: The label budget of the corpus' generator, to be reported.
        out: JSON file to write.

    Compared with generated images are real lesions with masks, as those are what a corpus
    imitates; memorisation is sought among all training images, labelled or not.

    Raises:
        InputError: tables missing or of another image size, unknown segmenter or weights that are
            not its own, no accepted image, or KID subsets larger than a set of images.
    """
    size_px = config.image.size_px
    network = load_segmenter(segmenter_config(config, segmenter), weights)
    real = cohort.read()
    test, seen = real.lesions(), real.training()
    training = real.labelled_training(ALL_LABELS)
    accepted = list_accepted(corpus)
    looked_at = evenly_spread(len(accepted.listed), config.evaluation.images)
    generated = accepted.rows(accepted.listed.iloc[looked_at])
    test_images, generated_images, training_images = (
        labelled_images(rows, size_px) for rows in (test, generated, training)
    )
    encoder = f"{segmenter} encoder trained on this run's real training images"
    result = {
        "encoder": encoder,
        "labels": str(labels),
        "generated": accepted.count.made,
        "accepted": accepted.count.accepted,
        "evaluated": len(generated),
        "fidelity": evaluate_fidelity(
            image_features(network, generated_images.images_NHW),
            image_features(network, training_images.images_NHW),
            real.groups_of(training["case_id"]),
            image_features(network, test_images.images_NHW),
            test["group_id"].to_numpy(),
            encoder=encoder,
            settings=config.evaluation,
            seed=config.seed,
        ),
        "control": evaluate_control(
            network,
            generated,
            generated_images,
            test,
            test_images,
            settings=config.evaluation,
            seed=config.seed,
        ),
        "adherence": evaluate_adherence(
            generated,
            generated_images,
            mask_groups(generated),
            test,
            test_images,
            settings=config.evaluation,
            seed=config.seed,
        ),
        "memorisation": evaluate_memorisation(
            generated_images.images_NHW,
            test_images.images_NHW,
            images_of(seen["image"][seen["image"].notna()]),
        ),
    }
    write_text(out, json.dumps(result, indent=1, allow_nan=False) + "\n")
