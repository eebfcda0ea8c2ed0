"""Numbers that a later step would refuse are refused as soon as the splits are known."""

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_config

from stdiff.evaluation.before_training import check_numbers
from stdiff.evaluation.fidelity import halves_of_test
from stdiff.runtime.errors import InputError
from stdiff.table.cohort import Cohort

ROLES = {"train": 40, "validation": 12, "test": 24}


class Files:
    """A cohort in memory."""

    def __init__(self, roles=ROLES, pathology="benign malignant"):
        role = np.repeat(list(roles), list(roles.values()))
        ids = [f"busi/{i:03d}" for i in range(len(role))]
        classes = pathology.split()
        self.cases = pd.DataFrame(
            {"case_id": ids, "mask": [{"bytes": b""}] * len(ids), "lesion_count": 1}
            | {"pathology": [classes[i % len(classes)] for i in range(len(ids))], "birads": None}
        )
        rank = np.where(role == "train", np.arange(len(role)) / max(1, roles["train"]), np.nan)
        self.splits = pd.DataFrame(
            {"case_id": ids, "group_id": ids, "fold": 0, "role": role, "label_rank": rank}
        )

    def read(self, columns):
        return Cohort(self.cases[list(columns)], self.splits)


def config_of(labels=(100,), **changes):
    arms = {"real": {"kind": "real"}, "mixed": {"kind": "mixed", **changes.pop("mixed", {})}}
    training = {"images": 16, "batch": 4}
    return tiny_config(
        segmentation={"training": training, "labels": list(labels), "arms": arms}, **changes
    )


def test_enough_of_everything_passes():
    check_numbers(config_of(), Files())


@pytest.mark.parametrize(
    ("roles", "changes", "message"),
    [
        (
            {"test": 20},
            {"evaluation": {"kid_subset_size": 11}},
            "has 10 images .*kid_subset_size: 10",
        ),
        ({"test": 12}, {}, "smallest set to compare has 6 images .half of the test.*split.test"),
        ({"train": 9}, {}, "has 9 images .labelled training lesions"),
        ({"validation": 0}, {}, "annotated validation lesion; raise split.validation"),
        ({"test": 0}, {}, "annotated test lesion"),
        ({}, {"labels": ["41 cases"]}, "41 cases are more than the 40 annotated"),
        ({}, {"labels": [100, 5]}, "training.finetune.batch is 4, but there are only 2"),
        ({}, {"mixed": {"ratio": 2}}, "arms.mixed.ratio 2 of 40 .*80 synthetic.*count is 12"),
        ({"validation": 9}, {"masks": {"compared": 5}}, "masks.compared 5 with 33 lesions"),
        ({}, {"corpus": {"count": 12, "shard_size": 4, "backgrounds": "kept"}}, "lesion-free"),
        (
            {},
            {"classification": {"training": {"images": 16, "batch": 4}, "targets": ["birads"]}},
            "birads: no test lesion is",
        ),
    ],
)
def test_too_few_are_refused(roles, changes, message):
    with pytest.raises(InputError, match=message):
        check_numbers(config_of(**changes), Files(ROLES | roles))


def test_the_generators_batches_and_validation_are_compared():
    stage = {"images": 64, "batch": 64}
    training = {"autoencoder": stage, "pretrain": stage}
    training["finetune"] = {"images": 16, "batch": 4, "validate_every_images": 8}
    with pytest.raises(InputError) as error:
        check_numbers(config_of(training=training), Files(ROLES | {"validation": 9}))
    said = str(error.value)
    assert said.startswith("too few images") and said.count("\n- ") == 3
    for text in ("training.autoencoder.batch is 64, but there are only 40", "training.pretrain"):
        assert text in said
    assert "at least 10 validation lesions, but there are 9" in said


def test_the_halves_are_those_that_the_evaluation_compares():
    """A group that the middle cuts makes the other half smaller than half."""
    files = Files(ROLES | {"test": 20})
    test = files.splits["role"] == "test"
    files.splits.loc[test, "group_id"] = [f"g{i // 6}" for i in range(20)]
    smallest = min(map(len, halves_of_test(files.splits["group_id"][test], 0)))
    assert smallest < 10
    with pytest.raises(InputError, match=f"has {smallest} images"):
        check_numbers(config_of(), files)
