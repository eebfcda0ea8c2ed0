"""A generator without a network, and plans for it; shared by tests of shards."""

import sys

import numpy as np
from killing import STEP

from stdiff.birads.lexicon import Findings, render
from stdiff.config.generator import SamplerConfig
from stdiff.table.cases import case_row, png_cell, write_cases

SIZE = 32
SAMPLER = SamplerConfig(batch=2)


class Noise:
    """Fulfils the generator's contract without a network: noise by seed."""

    size_px = SIZE

    def __init__(self, sha256="a" * 64):
        self.sha256, self.made = sha256, 0

    def generate(self, masks_NHW, captions, seeds, sampler, backgrounds_NHW=None):
        sys.audit(STEP)
        self.made += len(seeds)
        noise = [np.random.default_rng(seed).integers(0, 255, (SIZE, SIZE)) for seed in seeds]
        return np.stack(noise).astype(np.uint8)


def plan_of(path, count):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[8:20, 6:25] = 255
    findings = Findings(pathology="benign")
    rows = [
        case_row(
            case_id=f"c/{i:08d}",
            collection="c",
            mask=png_cell(mask, "m"),
            height_px=SIZE,
            width_px=SIZE,
            lesion_count=1,
            caption=render(findings),
            seed=i,
            sample_index=i,
            **findings.as_row(),
        )
        for i in range(count)
    ]
    write_cases(rows, path)
    return path
