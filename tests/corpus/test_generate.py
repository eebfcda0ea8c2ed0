"""Shards and single images from a real (if tiny) model folder, through the command line."""

import itertools
from functools import partial

import numpy as np
import pytest
from killing import killed_before
from PIL import Image
from tiny import tiny_config, tiny_model

from stdiff.cli.main import main
from stdiff.corpus.shards import verify_corpus
from stdiff.diffusion.folder import save_model
from stdiff.table.cases import SCHEMA, images_of, read_cases, read_rows, verify_table, write_cases


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tables):
    """A model folder and a plan of ten images."""
    path = tmp_path_factory.mktemp("corpus")
    save_model(tiny_model(tiny_config()), path / "model", {})
    assert plan(path / "plan.parquet", 10, tables) == 0
    return path


def plan(out, count, tables):
    return run(
        *("plan", "--config", tables["config"], "--cases", tables["cases"]),
        *("--splits", tables["splits"], "--count", count, "--seed", 5, "--out", out),
    )


def shard_command(folder, tables, number, out, plan_name="plan.parquet"):
    return (
        *("generate", "--config", tables["config"], "--plan", folder / plan_name),
        *("--model", folder / "model", "--shard", number, "--out", out, "--threads", 1),
    )


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_shards_hold_the_plan_and_a_larger_corpus_begins_with_a_smaller_one(
    folder, tables, tmp_path
):
    shards = [tmp_path / f"{i:05d}.parquet" for i in range(3)]
    for number, out in enumerate(shards):
        assert run(*shard_command(folder, tables, number, out)) == 0
    assert verify_corpus(shards, folder / "plan.parquet") == []
    assert [len(read_cases(shard)) for shard in shards] == [4, 4, 2]
    assert verify_table(shards[0]) == []
    rows = read_cases(shards)
    assert rows["model_sha256"].nunique() == 1
    assert rows["flags"].map(lambda flags: "synthetic" in flags).all()

    assert plan(folder / "larger.parquet", 14, tables) == 0
    again = tmp_path / "again.parquet"
    assert run(*shard_command(folder, tables, 1, again, "larger.parquet")) == 0
    assert again.read_bytes() == shards[1].read_bytes()


def test_rejected_images_are_made_again_under_the_same_plan(folder, tables, tmp_path):
    shard, judged, plan, again = (tmp_path / f"{n}.parquet" for n in ("0", "judged", "plan1", "r1"))
    assert run(*shard_command(folder, tables, 2, shard)) == 0

    def judge(source, out, rejected):
        verdict = dict.fromkeys(SCHEMA.field("filter").type.names)
        cells = ({**verdict, "accepted": i not in rejected, "reasons": []} for i in range(9))
        rows = zip(read_rows(source), cells, strict=False)
        write_cases([{**row, "filter": cell} for row, cell in rows], out)

    def resample(source, out):
        config = tables["config"]
        assert run("plan", "--config", config, "--resample", source, "--out", out) == 0
        return run(*shard_command(folder, tables, 0, again, out))

    judge(shard, judged, rejected={1})
    assert resample(judged, plan) == 0
    (first,), old = read_rows(again), read_rows(shard)[1]
    assert (first["mask"], first["caption"]) == (old["mask"], old["caption"])
    assert first["image"]["bytes"] != old["image"]["bytes"]
    shards = [tmp_path / f"whole{i}.parquet" for i in range(2)]
    for number, out in enumerate(shards):
        assert run(*shard_command(folder, tables, number, out)) == 0
    assert verify_corpus([*shards, judged, again], folder / "plan.parquet") == []

    judge(shard, judged, rejected=())
    assert resample(judged, plan) == 0
    assert read_rows(again) == []
    assert run(*shard_command(folder, tables, 1, again, plan)) == 1


def test_a_shard_beyond_the_plan_is_refused(folder, tables, tmp_path, capsys):
    assert run(*shard_command(folder, tables, 3, tmp_path / "x.parquet")) == 1
    assert "shard 3 is empty" in capsys.readouterr().err
    assert not (tmp_path / "x.parquet").exists()


def test_generation_killed_at_any_step_leaves_nothing_by_halves(folder, tables, tmp_path):
    calm, rough = tmp_path / "calm.parquet", tmp_path / "rough.parquet"
    assert run(*shard_command(folder, tables, 0, calm)) == 0
    command = shard_command(folder, tables, 0, rough)
    for step in itertools.count(1):
        killed = killed_before(step, partial(run, *command))
        assert rough.read_bytes() == calm.read_bytes() if rough.exists() else killed
        if not killed:
            break
        rough.unlink(missing_ok=True)
    assert step > 1


def test_one_image_from_a_mask_and_a_text(folder, tmp_path, capsys):
    mask = np.zeros((100, 80), np.uint8)
    mask[40:70, 20:60] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")

    def one(text, out, seed=3):
        return run(
            *("generate-one", "--model", folder / "model", "--mask", tmp_path / "m.png"),
            *("--text", text, "--steps", 2, "--seed", seed, "--out", tmp_path / out),
        )

    text = "BI-RADS 4: irregular shape, indistinct margin, hypoechoic"
    assert one(text, "x.png") == 0
    picture = Image.open(tmp_path / "x.png")
    assert picture.size == (32, 32) and picture.mode == "L"
    assert picture.text["caption"] == text
    assert "not for diagnosis" in picture.text["synthetic"]
    assert one("BIRADS-4, hypoechoic, irregular shape, indistinct margin", "y.png") == 0
    assert one(text, "z.png", seed=4) == 0
    x, y, z = (np.asarray(Image.open(tmp_path / f"{n}.png")).astype(int) for n in "xyz")
    assert np.array_equal(x, y)
    assert np.abs(x - z).max() > 5

    assert one("purple shape", "w.png") == 1
    said = capsys.readouterr().err
    assert "'purple shape' is not a lexicon term; did you mean" in said
    assert not (tmp_path / "w.png").exists()


def test_images_with_chosen_features_need_no_corpus(folder, tables, tmp_path):
    asked = "pathology=malignant, orientation=not parallel, posterior_features=shadowing"
    masks, shard = tmp_path / "masks.parquet", tmp_path / "chosen.parquet"
    sample = ("masks", "sample", "--size", 32, "--count", 3, "--where", asked, "--out", masks)
    assert run(*sample) == 0
    assert run(*shard_command(folder, tables, 0, shard, masks)) == 0
    rows = read_cases(shard)
    assert rows["image"].notna().all() and len(rows) == 3
    assert set(rows["posterior_features"]) == {"shadowing"}
    assert rows["caption"].str.contains("not parallel.*posterior shadowing").all()
    for done in (
        ("corpus", "show", shard, "--out", tmp_path / "sheet.png"),
        ("export", shard, "--as", "folders", "--to", tmp_path / "chosen"),
    ):
        assert run(*done) == 0
    assert len(list((tmp_path / "chosen" / "images").iterdir())) == 3


def test_the_images_of_a_shard_are_those_of_its_masks(folder, tables, tmp_path):
    assert run(*shard_command(folder, tables, 0, tmp_path / "0.parquet")) == 0
    planned = images_of(read_cases(folder / "plan.parquet")["mask"])
    assert np.array_equal(images_of(read_cases(tmp_path / "0.parquet")["mask"]), planned[:4])
