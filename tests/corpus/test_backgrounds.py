"""A corpus of lesions put into real lesion-free images, from the plan to the shard."""

import numpy as np
import pandas as pd
import pytest
import yaml
from tiny import lesion_scene, tiny_config, tiny_model, write_tables

from stdiff.cli.main import main
from stdiff.config.run import ConfigError, parse_config
from stdiff.corpus.shards import verify_corpus
from stdiff.diffusion.decoupling import soft_gates
from stdiff.diffusion.folder import save_model
from stdiff.table.cases import case_row, images_of, png_cell, read_cases, read_rows, write_cases

ROLES = ["train", "train", "test", "validation"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables with lesions and, of every role, a lesion-free image; and a model."""
    path = tmp_path_factory.mktemp("backgrounds")
    config = tiny_config(corpus={"count": 12, "shard_size": 4, "backgrounds": "kept"})
    paths = write_tables(path, config)
    rows, splits = read_rows(paths["cases"]), pd.read_parquet(paths["splits"])
    for number, role in enumerate(ROLES):
        case_id = f"busi/normal-{number:04d}"
        rows.append(
            case_row(
                case_id=case_id,
                collection="busi",
                group_id=case_id,
                image=png_cell(lesion_scene(100 + number)[0], "i"),
                mask=png_cell(np.zeros((32, 32), np.uint8), "m"),
                height_px=32,
                width_px=32,
                lesion_count=0,
                pathology="normal",
                caption="normal",
            )
        )
        splits.loc[len(splits)] = {
            **splits.iloc[0].to_dict(),
            **{"case_id": case_id, "group_id": case_id, "role": role},
            "label_rank": [0.0, 0.9][number] if role == "train" else None,
        }
    write_cases(rows, paths["cases"])
    splits.to_parquet(paths["splits"])
    save_model(tiny_model(config), path / "model", {})
    return path


def planned(folder, name, *options, count=8):
    arguments = (
        *("plan", "--config", folder / "config.yaml", "--cases", folder / "cases.parquet"),
        *("--splits", folder / "splits.parquet", "--count", count, "--seed", 3),
        *("--out", folder / name, *options),
    )
    return main([str(argument) for argument in arguments])


def origins(folder, name):
    return [cell["path"] for cell in read_cases(folder / name)["background"]]


def test_backgrounds_are_lesion_free_training_images_within_the_labels(folder):
    assert planned(folder, "plan.parquet") == 0
    assert set(origins(folder, "plan.parquet")) == {
        *("busi/normal-0000.png", "busi/normal-0001.png"),
    }
    assert planned(folder, "tenth.parquet", "--labels", 10) == 0
    assert set(origins(folder, "tenth.parquet")) == {"busi/normal-0000.png"}
    assert planned(folder, "small.parquet", count=3) == 0
    assert origins(folder, "small.parquet") == origins(folder, "plan.parquet")[:3]


def test_a_shard_keeps_its_backgrounds_outside_the_gate(folder):
    assert planned(folder, "plan.parquet") == 0
    for number in range(2):
        arguments = (
            *("generate", "--config", folder / "config.yaml", "--plan", folder / "plan.parquet"),
            *("--model", folder / "model", "--shard", number, "--threads", 1),
            *("--out", folder / f"{number:05d}.parquet"),
        )
        assert main([str(argument) for argument in arguments]) == 0
    shards = [folder / f"{number:05d}.parquet" for number in range(2)]
    assert verify_corpus(shards, folder / "plan.parquet") == []
    rows = read_cases(shards)
    images, given, masks = (images_of(rows[name]) for name in ("image", "background", "mask"))
    gates = soft_gates(masks, tiny_config().model.gate)[:, 0].numpy()
    assert np.array_equal(images[gates == 0], given[gates == 0])
    assert (images != given).any(axis=(1, 2)).all()


def test_a_background_that_was_changed_is_found(folder):
    rows = read_rows(folder / "00000.parquet")
    rows[1]["background"] = rows[1]["image"]
    write_cases(rows, folder / "changed.parquet")
    problems = verify_corpus(
        [folder / "changed.parquet", folder / "00001.parquet"], folder / "plan.parquet"
    )
    assert any("background differs from the plan's" in problem for problem in problems)


def test_without_a_lesion_free_image_or_a_gate_it_is_refused(folder, tmp_path, capsys):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    paths = write_tables(tmp_path, parse_config(config))
    arguments = (
        *("plan", "--config", paths["config"], "--cases", paths["cases"], "--seed", 3),
        *("--splits", paths["splits"], "--count", 2, "--out", tmp_path / "plan.parquet"),
    )
    assert main([str(argument) for argument in arguments]) == 1
    assert "no training image known to be lesion-free" in capsys.readouterr().err
    config["model"]["gate"]["everywhere"] = True
    with pytest.raises(ConfigError, match=r"model.gate.everywhere leaves no background"):
        parse_config(config)
