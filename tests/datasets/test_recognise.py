"""`stdiff init`: from a raw folder to a configuration that runs on it."""

import numpy as np
import pytest
from raw_collections import save, speckle

from stdiff.cli.main import main
from stdiff.config.run import check_raw_folders, load_config
from stdiff.datasets.readers import read_raw
from stdiff.datasets.recognise import PUBLISHED, recognise
from stdiff.runtime.errors import InputError
from stdiff.simulation.collections import make_phantom


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "raw"
    make_phantom(folder, 100, 0, 80)
    return folder


def write_own(root, images=2):
    for n in range(images):
        save(root / "images" / f"{n}.png", speckle(n, 20, 20))
    save(root / "masks" / "0.png", np.full((20, 20), 255, np.uint8))
    (root / "metadata.csv").write_text("stem,patient_id\n0,a\n1,a\n")


def test_simulated_collections_are_found_and_counted(phantom):
    found, notes = recognise(phantom)
    assert {one.name: one.path for one in found} == {
        "busi": "Dataset_BUSI_with_GT",
        "bus_bra": "BUSBRA",
        "bus_cot": "BUSCoT",
    }
    assert not notes
    for one in found:
        cases, problems = read_raw(one.name, phantom / one.path)
        assert (one.images, one.left_out) == (len(cases), len(problems))
        assert 0 < one.masks <= one.images
    patients = {one.name: one.patients for one in found}
    assert patients["busi"] == 0 and 0 < patients["bus_bra"] <= 100


def test_the_written_configuration_can_be_run(phantom, tmp_path, capsys):
    out = tmp_path / "mine.yaml"
    assert main(["init", str(phantom), "--out", str(out)]) == 0
    config = load_config(out)
    check_raw_folders(config)
    assert config.run == "mine" and config.data_root == str(phantom)
    assert set(config.collections) == {"busi", "bus_bra", "bus_cot"}
    said = capsys.readouterr().out
    assert "bus_bra: 100 images, 100 masks" in said and f"--configfile {out}" in said
    before = out.read_text()
    assert main(["init", str(phantom), "--out", str(out)]) == 1
    assert f"{out}: exists and is not overwritten" in capsys.readouterr().err
    assert out.read_text() == before


def test_a_single_collection_under_another_name(phantom, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "busi (1)").symlink_to(phantom / "Dataset_BUSI_with_GT")
    (one,), _ = recognise(tmp_path)
    assert (one.name, one.path) == ("busi", "downloads/busi (1)")
    (one,), _ = recognise(phantom / "BUSBRA")
    assert (one.name, one.path) == ("bus_bra", ".")


@pytest.mark.parametrize("below", [".", "mine"])
def test_a_folder_of_the_users_own(tmp_path, below):
    write_own(tmp_path / below)
    (one,), notes = recognise(tmp_path)
    assert (one.name, one.path, one.images, one.masks, one.patients) == ("folder", below, 2, 1, 1)
    assert not notes


def test_what_cannot_be_used_is_noted(phantom, tmp_path):
    write_own(tmp_path / "a")
    write_own(tmp_path / "b")
    (tmp_path / "BUSBRA").mkdir()
    found, notes = recognise(tmp_path)
    assert [one.path for one in found] == ["a"]
    assert any("bus_bra cannot be used" in note and "bus_data.csv" in note for note in notes)
    assert any(note.startswith("b is left out") for note in notes)


def test_nothing_recognised_says_what_was_looked_for(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds no known collection, found notes.txt") as error:
        recognise(tmp_path)
    for name, folder in PUBLISHED.items():
        assert f"{folder}/ ({name})" in str(error.value)
    assert "images/ and masks/" in str(error.value)
    assert main(["init", str(tmp_path / "none"), "--out", str(tmp_path / "c.yaml")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "c.yaml").exists()


def test_interactive_asks_for_name_and_size(phantom, tmp_path, monkeypatch):
    answers = {"name of the run": "asked", "side of the images, px (0: by machine)": 128}
    monkeypatch.setattr("typer.prompt", lambda text, **_: answers[text])
    out = tmp_path / "c.yaml"
    assert main(["init", str(phantom), "--out", str(out), "--interactive"]) == 0
    config = load_config(out)
    assert (config.run, config.image.size_px) == ("asked", 128)
