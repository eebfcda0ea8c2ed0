import itertools
import random

import numpy as np
import pandas as pd
import pytest
from killing import killed_before
from noise import Noise
from tqdm import tqdm

from stdiff.birads.lexicon import Findings
from stdiff.cli.main import main
from stdiff.config.generator import SamplerConfig
from stdiff.corpus.plan import read_plan, write_plan
from stdiff.corpus.shards import make_shard, verify_corpus, verify_shard
from stdiff.corpus.unfinished import write_shard
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png
from stdiff.table.cases import case_row, images_of, png_cell, read_cases, verify_table, write_cases
from stdiff.table.cohort import CohortFiles
from stdiff.table.label_budget import LabelBudget

SIZE = 32
SAMPLER = SamplerConfig(batch=4)


class SeededNoise:
    """A generator that fulfils the contract without a network: noise by seed, mask brightened."""

    size_px = SIZE

    def __init__(self, sha256="a" * 64):
        self.sha256 = sha256
        self.batches = []

    def generate(self, masks_NHW, captions, seeds, sampler, backgrounds_NHW=None):
        assert masks_NHW.dtype == np.uint8
        assert len(masks_NHW) == len(captions) == len(seeds) <= sampler.batch
        self.batches.append(list(captions))
        noise = [np.random.default_rng(seed).integers(0, 100, (SIZE, SIZE)) for seed in seeds]
        return (np.stack(noise) + masks_NHW // 2).astype(np.uint8)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    rows = []
    for i in range(4):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[8 : 14 + i, 6 : 18 + i] = 255
        findings = Findings(pathology="benign", margin=("indistinct",)).as_row()
        rows.append(
            case_row(case_id=f"c/{i}", mask=png_cell(mask, "m"), lesion_count=1, **findings)
        )
    write_cases(rows, folder / "cases.parquet")
    splits = {"case_id": [r["case_id"] for r in rows], "fold": 0, "role": "train"}
    splits["label_rank"] = 0.0
    pd.DataFrame(splits).to_parquet(folder / "splits.parquet")
    write_plan(
        CohortFiles([folder / "cases.parquet"], folder / "splits.parquet"),
        folder / "plan.parquet",
        corpus="syn",
        weights={"bank": 1},
        labels=LabelBudget.parse(100),
        count=22,
        seed=0,
    )
    return folder / "plan.parquet"


def shard_rows(plan, start=0, stop=10, generator=None):
    rows = read_plan(plan, start, stop)
    return list(make_shard(rows, generator or SeededNoise(), SAMPLER, tqdm(disable=True)))


def written(rows, path):
    write_cases(rows, path)
    return path


def corpus(plan, folder):
    return [
        written(shard_rows(plan, start, start + 10), folder / f"{start}.parquet")
        for start in (0, 10, 20)
    ]


def test_a_shard_is_its_plan_with_images(plan, tmp_path):
    generator = SeededNoise()
    path = written(shard_rows(plan, generator=generator), tmp_path / "shard.parquet")
    assert verify_table(path) == []
    assert verify_shard(path, plan) == []
    # The last batch is filled up: its images are those of a longer plan.
    assert [len(batch) for batch in generator.batches] == [4, 4, 4]
    cases = read_cases(path)
    assert list(cases["case_id"]) == [f"syn/{i:08d}" for i in range(10)]
    assert all(list(flags) == ["synthetic"] for flags in cases["flags"])
    assert set(cases["model_sha256"]) == {"a" * 64}
    assert cases["plan_sha256"].nunique() == 10
    assert cases["source_path"].isna().all()
    # Each image is the one of its own mask and seed.
    images, masks = images_of(cases["image"]), images_of(cases["mask"])
    for image, mask, seed in zip(images, masks, cases["seed"], strict=True):
        assert np.array_equal(image, SeededNoise().generate(mask[None], [""], [seed], SAMPLER)[0])


def test_a_shard_made_again_is_byte_for_byte_the_same(plan, tmp_path):
    first, second = (written(shard_rows(plan), tmp_path / f"{i}.parquet") for i in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_a_whole_corpus_has_no_problems(plan, tmp_path, capsys):
    shards = corpus(plan, tmp_path)
    assert verify_corpus(shards, plan) == []
    command = ["corpus", "verify", *map(str, shards), "--plan", str(plan)]
    assert main(command) == 0 and "3 shard(s): no problem found" in capsys.readouterr().out
    del command[2]
    assert main(command) == 1 and "10 of the plan's 22 rows" in capsys.readouterr().out


def test_masks_of_another_size_are_refused(plan):
    generator = SeededNoise()
    generator.size_px = 64
    with pytest.raises(InputError, match=r"\(32, 32\).*\(64, 64\)"):
        shard_rows(plan, generator=generator)


def test_missing_repeated_and_mixed_shards_are_found(plan, tmp_path):
    first, second, third = corpus(plan, tmp_path)
    assert "10 of the plan's 22 rows" in "\n".join(verify_corpus([first, third], plan))
    again = written(shard_rows(plan, 0, 10), tmp_path / "again.parquet")
    assert "row 0 is also in" in "\n".join(verify_corpus([first, again, second, third], plan))
    written(shard_rows(plan, 10, 20, SeededNoise("b" * 64)), second)
    assert verify_shard(second, plan) == []
    assert "made with 2 values of model_sha256" in "\n".join(
        verify_corpus([first, second, third], plan)
    )
    assert "no such shard" in "\n".join(verify_corpus([first, tmp_path / "none.parquet"], plan))


def _without_image(rows):
    rows[3]["image"] = None


def _broken_image(rows):
    rows[3]["image"] = {"bytes": rows[3]["image"]["bytes"][:60], "path": "x.png"}


def _small_image(rows):
    rows[3]["image"] = png_cell(np.zeros((8, 8), np.uint8), "x")


def _other_mask(rows):
    rows[3]["mask"] = rows[4]["mask"]


def _other_caption(rows):
    rows[3]["caption"] = "malignant"


def _unmarked(rows):
    rows[3]["flags"] = []


def _other_plan(rows):
    rows[3]["plan_sha256"] = "0" * 64


def _no_index(rows):
    rows[9]["sample_index"] = None


def _mixed_models(rows):
    rows[3]["model_sha256"] = "b" * 64


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without_image, "syn/00000003: image missing"),
        (_broken_image, "syn/00000003: image cannot be decoded"),
        (_small_image, "syn/00000003: image is (8, 8)"),
        (_other_mask, "syn/00000003: mask differs"),
        (_other_caption, "syn/00000003: caption is 'malignant', the plan says"),
        (_unmarked, "syn/00000003: flags [] do not say 'synthetic'"),
        (_other_plan, "syn/00000003: plan_sha256 is not"),
        (_no_index, "syn/00000009: sample_index is None, expected 9"),
        (_mixed_models, "images made with 2 values of model_sha256 in one shard"),
        (lambda rows: rows.pop(3), "sample_index is 4, expected 3"),
        (lambda rows: rows.reverse(), "expected 10"),
        (lambda rows: rows.clear(), "not a shard"),
    ],
)
def test_a_spoilt_shard_is_found(plan, tmp_path, spoil, said):
    rows = shard_rows(plan)
    spoil(rows)
    problems = verify_shard(written(rows, tmp_path / "shard.parquet"), plan)
    assert said in "\n".join(problems)


def test_a_plan_is_no_shard_and_neither_is_another_table(plan):
    assert len(verify_shard(plan, plan)) >= 22
    assert "found columns" in verify_shard(plan.with_name("splits.parquet"), plan)[0]


def test_a_truncated_or_damaged_shard_is_never_taken_for_whole(plan, tmp_path):
    path = written(shard_rows(plan), tmp_path / "shard.parquet")
    whole, rows = path.read_bytes(), read_plan(path, 0, 10)
    for size in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:size])
        assert verify_shard(path, plan), f"truncated to {size} bytes"
    draw = random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        position = draw.randrange(len(whole))
        damaged[position] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        if not verify_shard(path, plan):
            read = read_plan(path, 0, 10)
            assert all(
                np.array_equal(decode_png(a["image"]["bytes"]), decode_png(b["image"]["bytes"]))
                for a, b in zip(read, rows, strict=True)
            ), f"byte {position}"


def test_a_shard_killed_while_it_is_written_is_absent_or_whole(plan, tmp_path):
    out, rows = tmp_path / "shard.parquet", read_plan(plan, 0, 22)

    def write():
        write_shard(rows, Noise(), SAMPLER, out, tqdm(disable=True))

    for step in itertools.count(1):
        killed = killed_before(step, write)
        assert verify_shard(out, plan) == [] if out.exists() else killed
        if not killed:
            break
        out.unlink(missing_ok=True)
    assert step > 5


# The steps a user calls: refused before any model is loaded, so without one ------------------


def test_a_shard_beyond_the_plan_is_refused(plan, tmp_path):
    from stdiff.corpus.generate import generate_shard

    with pytest.raises(InputError, match="22 rows at 10 a shard make 3 shard"):
        generate_shard(
            plan, tmp_path / "model", 3, tmp_path / "x.parquet", shard_size=10, sampler=SAMPLER
        )
    assert not (tmp_path / "x.parquet").exists()
