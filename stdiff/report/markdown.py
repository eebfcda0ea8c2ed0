"""All tables of a run as Markdown, for docs/results.md."""

from __future__ import annotations

from pathlib import Path

from stdiff.config.run import load_config
from stdiff.report.gain_contents import with_caution
from stdiff.report.tables import Table, nested_tables, records_table, steps_table
from stdiff.runtime.files import read_json


def results_markdown(run: Path) -> str:
    """Dice by arm, gains, evaluation of each corpus, seconds and memory of a finished run.

    Raises:
        InputError: ``run`` is not a finished run.
    """
    run = Path(run)
    config = load_config(run / "config.yaml")
    gain = read_json(run / "gain.json")
    alone = ["segmenter"] if len(config.segmentation.segmenters) == 1 else []
    parts = [
        ("Dice by arm", records_table(gain["by_arm"], leave_out=alone)),
        (
            f"Gain over {gain['baseline_arm']}",
            records_table(with_caution(gain), leave_out=alone),
        ),
    ]
    if (run / "auc.json").is_file():
        auc = read_json(run / "auc.json")
        parts += [("AUC by arm", records_table(auc["by_arm"]))]
        parts += [
            (f"Gain in AUC over {auc['baseline_arm']}", records_table(with_caution(auc, "auc")))
        ]
    for labels in config.segmentation.budgets:
        measured = read_json(run / f"labels{labels.slug}" / "evaluation.json")
        corpus = f"corpus of the generator with {labels} of the labels"
        fidelity = records_table(measured["fidelity"], leave_out=["encoder"])
        parts.append((f"Fidelity, {corpus} (features: {measured['encoder']})", fidelity))
        titles = {
            "control": "Mask Dice",
            "adherence": "Caption terms found",
            "memorisation": "Memorisation",
        }
        for name, title in titles.items():
            parts += [
                (", ".join(filter(None, (title, corpus, sub))), table)
                for sub, table in nested_tables(measured[name])
            ]
    parts.append(("Seconds and peak memory by step", steps_table(run / "benchmarks")))
    return "\n\n".join(f"### {title}\n\n{markdown_table(table)}" for title, table in parts)


def markdown_table(table: Table) -> str:
    """A table in Markdown; columns of numbers are right-aligned."""
    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    return "\n".join(f"| {' | '.join(row)} |" for row in [table.columns, rule, *table.rows])
