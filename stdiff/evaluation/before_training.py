"""Numbers of images that later steps need, checked as soon as the splits are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stdiff.config.evaluation import SMALLEST_KID_SUBSET
from stdiff.config.run import Config
from stdiff.downstream.images import with_known_class
from stdiff.downstream.per_case import held_out_lesions
from stdiff.evaluation.fidelity import halves_of_test
from stdiff.evaluation.mask_realism import FOLDS
from stdiff.runtime.errors import InputError
from stdiff.table.cohort import Cohort, CohortFiles
from stdiff.table.label_budget import ALL_LABELS

_COLUMNS = ("case_id", "mask", "lesion_count", "pathology", "birads")


def check_numbers(config: Config, files: CohortFiles) -> None:
    """Check that there are enough cases of each role for every later step.

    Raises:
        InputError: names every key that asks for more than there is, with the number there is.
    """
    cohort = files.read(_COLUMNS)
    checks = (_roles, _batches, _kid, _validation, _ratios, _classes, _masks)
    problems = list(dict.fromkeys(text for check in checks for text in check(config, cohort)))
    if problems:
        head = "too few images for this configuration:\n- " if len(problems) > 1 else ""
        raise InputError(head + "\n- ".join(problems))


def _refusal(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except InputError as error:
        yield str(error)


def _roles(config: Config, cohort: Cohort) -> Iterator[str]:
    yield from _refusal(lambda: held_out_lesions(config, cohort))
    if any(tail is not None for tail in config.corpus.filter.tails.values()):
        yield from _refusal(lambda: cohort.lesions("validation"))
    for labels in (*config.segmentation.budgets, ALL_LABELS):
        yield from _refusal(lambda labels=labels: cohort.labelled_training(labels))
        if config.corpus.backgrounds == "kept":
            yield from _refusal(lambda labels=labels: cohort.lesion_free_training(labels))


def _batches(config: Config, cohort: Cohort) -> Iterator[str]:
    """Batches of the generator, which must not repeat an image."""
    images = len(cohort.training())
    counts = {"autoencoder": images, "pretrain": images}
    if config.training.pretrain.trains == "nothing":
        del counts["pretrain"]
    fewest = min((len(rows) for rows in _labelled(config, cohort)), default=None)
    if fewest is not None:
        counts |= {"finetune": fewest, "distill": fewest}
    for stage, count in counts.items():
        settings = getattr(config.training, stage)
        if stage == "autoencoder" and config.model.checkpoint:
            continue
        if settings and settings.batch > count:
            yield (
                f"training.{stage}.batch is {settings.batch}, but there are only {count} training "
                f"images{' within the label budget' if stage in ('finetune', 'distill') else ''}; "
                f"e.g. batch: {count}"
            )


def _kid(config: Config, cohort: Cohort) -> Iterator[str]:
    try:
        test, training = cohort.lesions(), cohort.labelled_training(ALL_LABELS)
    except InputError:
        return  # said by _roles
    sets = {
        "half of the test lesions": min(map(len, halves_of_test(test["group_id"], config.seed)))
    }
    sets |= {"test lesions": len(test), "labelled training lesions": len(training)}
    name, smallest = min(sets.items(), key=lambda item: item[1])
    if config.evaluation.kid_subset_size > smallest:
        correction = (
            f"e.g. kid_subset_size: {smallest}"
            if smallest >= SMALLEST_KID_SUBSET
            else f"at least {SMALLEST_KID_SUBSET} are needed: raise split.test or add annotated "
            "images"
        )
        yield (
            f"evaluation.kid_subset_size is {config.evaluation.kid_subset_size}, but the smallest "
            f"set to compare has {smallest} images ({name}); {correction}"
        )


def _validation(config: Config, cohort: Cohort) -> Iterator[str]:
    if config.training.finetune.validate_every_images is None:
        return
    rows = cohort.with_role("validation")
    count = int((rows["mask"].notna() & (rows["lesion_count"] > 0)).sum())
    if count < SMALLEST_KID_SUBSET:
        yield (
            f"training.finetune.validate_every_images needs at least {SMALLEST_KID_SUBSET} "
            f"validation lesions, but there are {count}; raise split.validation, or set it to null"
        )


def _ratios(config: Config, cohort: Cohort) -> Iterator[str]:
    most = max((len(rows) for rows in _labelled(config, cohort)), default=0)
    for name, arm in config.segmentation.arms.items():
        wanted = round((arm.ratio or 0) * most)
        if arm.uses_corpus and wanted > config.corpus.count:
            yield (
                f"segmentation.arms.{name}.ratio {arm.ratio:g} of {most} labelled images are "
                f"{wanted} synthetic ones, but corpus.count is {config.corpus.count}; e.g. "
                f"ratio: {int(100 * config.corpus.count / most) / 100:g}, or raise corpus.count"
            )


def _classes(config: Config, cohort: Cohort) -> Iterator[str]:
    for target in config.classification.targets if config.classification else ():
        try:
            lesions = held_out_lesions(config, cohort)
        except InputError:
            return  # said by _roles
        for role, rows in lesions.items():
            yield from _refusal(
                lambda rows=rows, role=role, target=target: with_known_class(
                    rows, target, f"{role} lesion"
                )
            )


def _masks(config: Config, cohort: Cohort) -> Iterator[str]:
    held_out = 0
    for role in ("validation", "test"):
        held_out += int((cohort.with_role(role)["lesion_count"] > 0).sum())
    compared = min(config.masks.compared, held_out)
    if config.masks.compared and compared < 2 * FOLDS:
        yield (
            f"masks.compared {config.masks.compared} with {held_out} lesions held out: at least "
            f"{2 * FOLDS} of each are needed; e.g. compared: 0"
        )


def _labelled(config: Config, cohort: Cohort) -> Iterator[object]:
    """Labelled training rows of each budget that has any."""
    for labels in config.segmentation.budgets:
        try:
            yield cohort.labelled_training(labels)
        except InputError:
            continue  # said by _roles
