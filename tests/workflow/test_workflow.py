"""The workflow as a user meets it: refusals before any job, and what every rule declares."""

import ast
import itertools
import os
import re
from pathlib import Path

import pytest
from workflow.forked import snakemake

from stdiff.datasets.readers import places_of
from stdiff.runtime import provenance
from stdiff.runtime.provenance import code_of, listing_of, modules_of, source_of

ROOT = Path(__file__).parents[2]
RULES = {
    name: body
    for file in sorted((ROOT / "workflow" / "rules").glob("*.smk"))
    for name, body in re.findall(
        r"\n *rule (\w+):\n(.*?)(?=\n *rule \w+:|\Z)", file.read_text(), re.S
    )
}
RUNS_NETWORKS = {
    *("autoencoder", "pretrain", "finetune", "distill", "segment", "classify"),
    *("shard", "replacement_shard", "filter_thresholds", "filter"),
}
# Every rule there is has a job in this run; its values are none of the commands' defaults.
DEMO = (
    *("--configfile", "config/demo.yaml", "--config", "run=never_made", "seed=7"),
    "split={folds: 3, fold: 1, validation: 0.15}",
    "collections={bus_cot: {path: BUSCoT, test_only: true}}",
    "segmentation={labels: [10 cases, 25, 100]}",
    "corpus={count: 150, shard_size: 150, filter: {replacement_rounds: 2}}",
    "classification={training: {images: 160, batch: 16}}",
    "training={finetune: {validate_every_images: 800}, distill: {images: 960, steps: 3}}",
)


@pytest.fixture(scope="module")
def commands():
    """(rule, command) of every job of that run."""
    done = snakemake(ROOT, "-n", "-p", *DEMO)
    assert done.returncode == 0, done.said
    return re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)+Shell command: (.*)$", done.said, re.M)


def test_a_dry_run_of_the_demo_lists_the_whole_chain(commands):
    assert {rule for rule, _ in commands} == {*RULES, "all"}


OF_ALL_BUDGETS = {"gain", "auc"}


def test_no_job_of_a_label_budget_is_given_what_is_of_another(commands):
    """Corpus, prior, model, thresholds, judge and ``--labels`` are all of the job's own budget."""
    budget, seen = r"(10cases|25|100)\b", []
    for rule, command in commands:
        if rule == "evaluate":
            # Its judge is the best there is, trained on real images; it decides nothing.
            command, judges = re.subn(r"--weights \S+/real-100/seed0\.safetensors", "", command)
            assert judges == 1
        found = re.findall(rf"labels{budget}|--labels {budget}|(?:real|mixed)-{budget}", command)
        budgets = {one for groups in found for one in groups if one}
        assert len(budgets) <= 1 or rule in OF_ALL_BUDGETS, command
        seen += [(rule, *budgets)] if len(budgets) == 1 else []
    for rule in {rule for rule, _ in seen}:
        assert {b for r, b in seen if r == rule} >= (
            {"100"} if rule in ("sampled_masks", "mask_realism") else {"10cases", "25", "100"}
        )


def test_each_command_is_given_what_it_must_not_take_from_elsewhere(commands):
    """Options that have a default, or whose absence nothing else would show."""
    budget, cohort = r"--labels (10cases|25|100) ", r"--splits results/never_made/splits\.parquet"
    needed = {
        "split": ["--folds 3 ", "--validation 0.15 ", "--test-only bus_cot ", "--seed 7 "],
        **dict.fromkeys(("mask_prior", "mask_realism"), [budget, cohort, "--fold 1 "]),
        "sampled_masks": [budget, cohort, "--fold 1 ", "--seed 7 ", r"/mask_prior\.json"],
        "shard": [budget, cohort, "--seed 7 ", r"/mask_prior\.json", "--model [^ ]*/distilled "],
        **dict.fromkeys(("autoencoder", "pretrain"), [cohort]),
        "finetune": [budget, cohort, r"--weights [^ ]*/real-[^ ]*/seed0\.safetensors"],
        "distill": [budget, cohort, "--base [^ ]*/model "],
        "filter_thresholds": [budget, cohort, r"--weights [^ ]*/real-[^ ]*/seed0\.safetensors"],
        "filter": [r"--weights [^ ]*/real-[^ ]*/seed0\.safetensors", r"/filter\.json"],
        "evaluate": [budget, cohort, r"--corpus @[^ ]*/shards\.txt"],
        **dict.fromkeys(("segment", "classify"), [cohort]),
    }
    for rule, options in needed.items():
        of_rule = [command for name, command in commands if name == rule]
        assert of_rule, rule
        for command, option in itertools.product(of_rule, options):
            assert re.search(option, command), f"{rule} lacks {option}: {command}"
    mixed = [c for rule, c in commands if rule in ("segment", "classify") and "--arm mixed" in c]
    assert mixed and all(re.search(r"--corpus @[^ ]*/shards\.txt ", c) for c in mixed)


def test_a_missing_data_root_is_refused_with_the_key():
    done = snakemake(
        ROOT, "-n", "--configfile", "config/busi_cpu.yaml", "--config", "data_root=/nowhere/at/all"
    )
    assert done.returncode == 1
    said = done.said
    assert "data_root: '/nowhere/at/all'" in said
    assert "collections.busi.path: 'Dataset_BUSI_with_GT': no folder" in said
    assert "collections.bus_bra.path" in said
    assert "Traceback" not in said


def test_an_unknown_key_is_refused_before_any_job_with_the_mend():
    done = snakemake(
        ROOT, "--configfile", "config/demo.yaml", "--config", "sede=3", "run=never_made"
    )
    said = done.said
    assert done.returncode == 1
    assert "sede: 3: unknown key; did you mean `seed`?" in said
    assert not (ROOT / "results" / "never_made").exists()


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_declares_what_a_cluster_needs(name):
    body = RULES[name]
    for needed in ("log:", "benchmark:", "threads:", "mem_mb=", "runtime=", "> {log} 2>&1"):
        assert needed in body, f"{name} lacks {needed}"
    if name in RUNS_NETWORKS:
        assert "gpu=" in body and "--threads {threads}" in body
    # Neither makes what a training reads, and a rerun of either would repeat all trainings.
    if name not in ("merged_config", "check"):
        assert "code=code_of(" in body, f"{name} does not name the modules it depends on"


def test_modules_of_follows_imports_and_leaves_the_rest():
    training = modules_of("stdiff.training.stages")
    assert {"stdiff.training.loop", "stdiff.diffusion.decoupling", "stdiff.runtime.files"} <= set(
        training
    )
    assert not [m for m in training if "downstream" in m or "report" in m or "datasets" in m]
    # Its values reach the rules as params; its text changes no result.
    assert "stdiff.config.run" not in training
    harmonize = modules_of("stdiff.datasets.harmonize")
    assert "stdiff.datasets.bus_bra" in harmonize
    assert not [m for m in harmonize if "diffusion" in m or "training" in m]


def test_the_code_of_a_step_is_what_it_does_not_how_it_is_written(tmp_path, monkeypatch):
    module = tmp_path / "stdiff" / "sums.py"
    module.parent.mkdir()
    monkeypatch.setattr(provenance, "_PACKAGE", module.parent)

    def code(text):
        module.write_text(text)
        provenance._meaning.cache_clear()
        provenance._imports.cache_clear()
        return code_of("stdiff.sums")

    plain = code("def f(x):\n    return x + 1\n")
    assert plain == code('"""Sums."""\n\n\ndef f(x):\n    """Add."""\n    return (x + 1)  # one\n')
    others = [
        code("def f(x):\n    return x + 2\n"),
        code("def f(x):\n    return 1 + x\n"),
        code("def f(x):\n    return x + 1\nf(2)\n"),
        code("def f(x):\n    if x:\n        'a string'\n    return x + 1\n"),
    ]
    assert len({plain, *others}) == 5


def test_imports_are_found_as_python_finds_them():
    for file in sorted((ROOT / "stdiff").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        named = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        ours = {name for name in named if name.split(".")[0] == "stdiff"}
        found = {name for name in ours if provenance._file(name).is_file()}
        assert set(provenance._imports(module)) == found, file


def test_a_network_of_the_users_own_is_an_input(tmp_path, monkeypatch):
    (tmp_path / "mynets" / "deep").mkdir(parents=True)
    for file in ("__init__", "nets", "deep/__init__", "deep/unet"):
        (tmp_path / "mynets" / f"{file}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert source_of("mynets.nets:build") == [str(tmp_path / "mynets" / "nets.py")]
    assert source_of("mynets.deep.unet:build") == [str(tmp_path / "mynets" / "deep" / "unet.py")]
    assert source_of("mynets:build") == [str(tmp_path / "mynets" / "__init__.py")]
    assert source_of("mynets.none:build") == source_of("nowhere.at.all:f") == []
    assert source_of("Unet") == source_of("monai.UNet") == []


def test_a_replaced_raw_file_is_seen_without_being_read(tmp_path):
    (tmp_path / "benign").mkdir()
    file = tmp_path / "benign" / "benign (1).png"
    file.write_bytes(b"one")
    before = listing_of(tmp_path)
    assert listing_of(tmp_path) == before
    file.write_bytes(b"other")
    after = listing_of(tmp_path)
    file.rename(file.with_name("benign (2).png"))
    assert len({before, after, listing_of(tmp_path)}) == 3


def test_a_listing_follows_links_and_passes_over_what_readers_do(tmp_path):
    store, raw = tmp_path / "store", tmp_path / "raw"
    for folder in (store / "benign", raw):
        folder.mkdir(parents=True)
    file = store / "benign" / "benign (1).png"
    file.write_bytes(b"one")
    (raw / "benign").symlink_to(store / "benign")
    (raw / "benign (2).png").symlink_to(file)
    (store / "benign" / "back").symlink_to(store)  # a loop
    (raw / "nowhere.png").symlink_to(tmp_path / "none")
    listings = [listing_of(raw)]
    for name in (".DS_Store", "._a.png", "Thumbs.db", ".ipynb_checkpoints/a.png", "__MACOSX/a.png"):
        clutter = raw / "benign" / name
        clutter.parent.mkdir(exist_ok=True)
        clutter.write_bytes(b"clutter")
    os.utime(raw, (1, 1))
    assert listing_of(raw) == listings[0]
    file.write_bytes(b"other")
    listings.append(listing_of(raw))
    os.utime(file, (1, 1))
    listings.append(listing_of(raw))
    file.with_name("benign (3).png").write_bytes(b"new")
    listings.append(listing_of(raw))
    assert len(set(listings)) == 4


def test_of_a_collection_only_what_its_reader_reads_is_listed(tmp_path):
    folders = {"busi": "D/benign", "bus_bra": "B/Images", "folder": "mine/GT", "breast": "brst"}
    for folder in ("D/malignant", "B/Masks", "mine/images", *folders.values()):
        (tmp_path / folder).mkdir(parents=True)
    files = ("B/bus_data.csv", "mine/images/a.png", "mine/GT/a.png", "mine/m.csv", "brst/case1.png")
    for file in (*files, "BrEaST-Lesions-USG-clinical-data.xlsx"):
        (tmp_path / file).write_bytes(b"")
    roots = {name: tmp_path for name in folders} | {"folder": tmp_path / "mine"}
    listings = {name: listing_of(*places_of(name, root)) for name, root in roots.items()}
    for name, root in roots.items():
        (tmp_path / folders[name] / "new.png").write_bytes(b"")
        (root / f"notes on {name}.txt").write_bytes(b"")
        now = {other: listing_of(*places_of(other, roots[other])) for other in roots}
        assert {other for other in roots if now[other] != listings[other]} == {name}
        listings = now


def test_a_file_of_the_same_size_is_seen_by_its_time(tmp_path):
    file = tmp_path / "one.png"
    file.write_bytes(b"one")
    before = listing_of(tmp_path)
    file.write_bytes(b"two")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert listing_of(tmp_path) != before


# The packages of stdiff/: each may import itself and those before it.
ROOMS = [
    *("runtime", "birads", "table", "config", "overlays", "near_duplicates", "fetching"),
    *("simulation", "datasets", "splitting", "masks", "diffusion", "training", "corpus"),
    *("export", "downstream", "filtering", "evaluation", "report", "cli"),
]


def test_the_root_of_the_package_holds_packages_only():
    found = {path.name for path in (ROOT / "stdiff").iterdir() if path.name != "__pycache__"}
    assert found == {*ROOMS, "__init__.py", "__main__.py"}


def test_imports_run_one_way():
    for file in sorted((ROOT / "stdiff").glob("*/*.py")):
        module = f"stdiff.{file.parent.name}.{file.stem}"
        floor = ROOMS.index(file.parent.name)
        for other in (m for m in provenance._imports(module) if m != "stdiff"):
            assert ROOMS.index(other.split(".")[1]) <= floor, f"{module} imports {other}"
