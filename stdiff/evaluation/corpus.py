"""Evaluation of one synthetic corpus: fidelity, control, adherence and memorisation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stdiff.config.run import Config
from stdiff.downstream.images import labelled_images
from stdiff.downstream.networks import image_features, load_segmenter
from stdiff.downstream.segment import segmenter_config
from stdiff.evaluation.adherence import evaluate_adherence
from stdiff.evaluation.comparison import write_result
from stdiff.evaluation.control import evaluate_control, mask_groups
from stdiff.evaluation.fidelity import evaluate_fidelity
from stdiff.evaluation.memorisation import evaluate_memorisation
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
) -> str:
    """Write the evaluation of a corpus as JSON.

    Keys: ``encoder``, ``labels``, ``generated``, ``accepted`` and ``evaluated`` (numbers of
    images; the last at most ``evaluation.images``), ``fidelity`` (list of records), ``control``,
    ``adherence`` and ``memorisation`` of the evaluated images.

    Args:
        config: The run.
        cohort: Real cases and their splits.
        corpus: All shards of the corpus.
        segmenter: A name in ``segmentation.segmenters``.
        weights: Its weights, trained on real images only (arm ``real``, largest label budget).
            Evaluates control and provides the encoder for fidelity.
        labels: Label budget of the generator, to report.
        out: JSON file to write.

    Generated images are compared with real lesions with masks, which a corpus imitates;
    memorisation with all training images, labelled or not.

    Returns:
        One line: what was evaluated, and how well masks are followed.

    Raises:
        InputError: tables are missing or of another image size, the segmenter is unknown or does
            not match the weights, no image is accepted, or a KID subset is larger than a set.
    """
    size_px = config.image.size_px
    network = load_segmenter(segmenter_config(config, segmenter), weights)
    real = cohort.read()
    test, all_training = real.lesions(), real.training()
    training = real.labelled_training(ALL_LABELS)
    accepted = list_accepted(corpus)
    evaluated = evenly_spread(len(accepted.listed), config.evaluation.images)
    generated = accepted.rows(accepted.listed.iloc[evaluated])
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
            images_of(all_training["image"].dropna()),
        ),
    }
    write_result(result, out)
    made, real_masks = (result["control"][key]["dice_mean"] for key in ("mask_dice", "ceiling"))
    return (
        f"{len(generated)} of {accepted.count.accepted} accepted images evaluated "
        f"({accepted.count.made - accepted.count.accepted} rejected ones left out) against "
        f"{len(test)} test lesions: mask Dice {made:.3f}, of real images {real_masks:.3f}"
    )
