"""The package from Python: its names, and the notebook of docs/ on a run."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from tiny import tiny_config, tiny_model, write_tables

import stdiff
from stdiff.diffusion.folder import save_model
from stdiff.diffusion.pipeline import Generator
from stdiff.downstream.networks import build_segmenter, save_network

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "results" / "demo"


def test_the_names_of_the_package_are_those_of_its_page():
    page = (ROOT / "docs" / "api.md").read_text()
    for name in stdiff.__all__:
        assert getattr(stdiff, name) is not None
        assert f"`{name}" in page or f"stdiff.{name}" in page, name
    assert set(stdiff.__all__) <= set(dir(stdiff))
    with pytest.raises(AttributeError, match="no attribute 'Generater'"):
        stdiff.Generater  # noqa: B018


def test_to_import_the_package_is_light():
    code = "import sys, stdiff; print(stdiff.__version__); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert version == stdiff.__version__
    assert not set(modules.split()) & {"torch", "pandas", "numpy", "PIL", "pydantic", "typer"}


@pytest.fixture
def run(tmp_path):
    """What the notebook reads of a run, from networks with random weights."""
    demo, config = tmp_path / "results" / "demo", tiny_config()
    (demo / "cases").mkdir(parents=True)
    write_tables(demo / "cases", config)["cases"].rename(demo / "cases" / "busi.parquet")
    save_model(tiny_model(config), demo / "labels10cases" / "model", {})
    ((name, segmenter),) = config.segmentation.segmenters.items()
    weights = demo / "segment" / name / "real-10cases" / "seed0.safetensors"
    takes = {"segmenter": segmenter.model_dump(mode="json"), "image": config.image.model_dump()}
    save_network(build_segmenter(segmenter), weights, {}, takes)
    return tmp_path


def cells_of_the_notebook():
    notebook = json.loads((ROOT / "docs" / "demo.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in code), "clear the outputs of docs/demo.ipynb"
    return ["".join(cell["source"]) for cell in code]


@pytest.mark.parametrize("on", ["a tiny run", "the demo"])
def test_the_notebook_runs(on, monkeypatch, capsys, request):
    if on == "the demo" and not (DEMO / "report" / "index.html").is_file():
        pytest.skip("needs `make demo`")
    monkeypatch.chdir(ROOT if on == "the demo" else request.getfixturevalue("run"))
    matplotlib.use("agg")
    names = {}
    for cell in cells_of_the_notebook():
        exec(compile(cell, "docs/demo.ipynb", "exec"), names)
    said = capsys.readouterr().out
    assert "'purple margin' is not a lexicon term; did you mean" in said
    assert "real 0." in said and "synthetic 0." in said
    assert names["synthetic"].shape == names["masks"].shape


def test_generate_takes_terms_as_the_command_does(run):
    generator = Generator.load(f"{run}/results/demo/labels10cases/model")
    masks = stdiff.images_of(stdiff.read_cases(run / "results/demo/cases/busi.parquet")["mask"])
    spoken = generator.generate(masks[:1], ["irregular shape, BIRADS-4"], seeds=[1])
    written = generator.generate(masks[:1], ["BI-RADS 4: irregular shape"], seeds=[1])
    assert (spoken == written).all()
    for wrong, said in (
        ((masks[:1], ["purple margin"], [0]), "'purple margin' is not a lexicon term"),
        ((masks[:1, :9], [""], [0]), r"masks of \(1, 9, 32\); expected \(1, 32, 32\)"),
        ((masks[:2], ["", ""], [0]), r"expected \(1, 32, 32\): one for each seed"),
        ((masks[:1], [], [0]), "0 captions for 1 seeds"),
    ):
        with pytest.raises(stdiff.runtime.errors.InputError, match=said):
            generator.generate(*wrong)
