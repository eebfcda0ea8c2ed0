"""The training images that the filter compares with: encoder features and small pictures.

Made once per label budget and stored, because every shard of a corpus is compared with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stdiff.downstream.networks import image_features
from stdiff.filtering.nearest import most_correlated, standardised
from stdiff.filtering.scores import Nearest
from stdiff.runtime.files import InputError
from stdiff.runtime.tensor_files import Damaged, about_tensors, load_tensors, save_tensors

_BLOCK = 1024


@dataclass(frozen=True)
class FilterReference:
    """Training images; a generated image too near to one of them counts as a copy.

    Distances are of encoder features, each feature divided by its standard deviation over the
    training images; their unit is the median distance of a training image to the nearest other.
    Each image is kept as it is and mirrored left to right, because training uses both.
    """

    case_ids: list[str]  # M
    features_KD: torch.Tensor  # float64, K = 2 M: as they are, then mirrored; in units of distance
    scale_D: torch.Tensor  # float64, what features are multiplied by
    pictures_MHW: torch.Tensor  # as :func:`stdiff.filtering.nearest.standardised` gives them

    @classmethod
    def of(cls, case_ids: list[str], images_MHW: np.ndarray, network: nn.Module) -> FilterReference:
        """The reference of uint8 training images and a segmenter.

        Raises:
            InputError: fewer than two images.
        """
        if len(case_ids) < 2:
            raise InputError(
                f"{len(case_ids)} training image(s) to compare generated ones with; expected at "
                "least 2, lower split.test or split.validation"
            )
        both_KHW = np.concatenate([images_MHW, images_MHW[:, :, ::-1]])
        features_KD = torch.from_numpy(image_features(network, both_KHW)).double()
        scale_D = 1 / features_KD[: len(case_ids)].std(dim=0).clamp(min=1e-6)
        features_KD = features_KD * scale_D
        unit = _distances_to_others(features_KD, len(case_ids)).median().clamp(min=1e-6)
        return cls(case_ids, features_KD / unit, scale_D / unit, standardised(images_MHW))

    def by_embedding(self, images_NHW: np.ndarray, network: nn.Module) -> Nearest:
        """The nearest training images by features of the same segmenter, and the distances."""
        features = torch.from_numpy(image_features(network, images_NHW)).double() * self.scale_D
        distance_N, nearest_N = _nearest(features, self.features_KD)
        count = len(self.case_ids)
        return [self.case_ids[k % count] for k in nearest_N.tolist()], distance_N.numpy()

    def by_correlation(self, images_NHW: np.ndarray) -> Nearest:
        """The most similar training images, and the correlations with them, in [-1, 1]."""
        nearest_N, correlation_N = most_correlated(standardised(images_NHW), self.pictures_MHW)
        return [self.case_ids[k] for k in nearest_N], correlation_N

    def write(self, path: Path) -> None:
        """Write a safetensors file atomically."""
        tensors = {
            "features": self.features_KD,
            "scale": self.scale_D,
            "pictures": self.pictures_MHW,
        }
        save_tensors(path, tensors, {"case_ids": self.case_ids})

    @classmethod
    def load(cls, path: Path) -> FilterReference:
        """Read what :meth:`write` wrote.

        Raises:
            InputError: missing, damaged or another file.
        """
        try:
            found, case_ids = load_tensors(path), about_tensors(path)["case_ids"]
            tensors = [found[name] for name in ("features", "scale", "pictures")]
        except (Damaged, KeyError) as error:
            raise InputError(
                f"{path}: not the training images of a filter ({error}); delete it and run what "
                "makes it again (`stdiff filter calibrate`)"
            ) from error
        return cls(case_ids, *tensors)


def _nearest(features_ND: torch.Tensor, others_KD: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Distance (N,) to the nearest of others, and its index (N,)."""
    found = [torch.cdist(block, others_KD).min(dim=1) for block in features_ND.split(_BLOCK)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def _distances_to_others(features_KD: torch.Tensor, count: int) -> torch.Tensor:
    """Distance (count,) of each of the first images to the nearest that is not its own."""
    distances = []
    for start in range(0, count, _BLOCK):
        block_BK = torch.cdist(features_KD[start : min(start + _BLOCK, count)], features_KD)
        rows = torch.arange(len(block_BK))
        for own in (rows + start, rows + start + count):
            block_BK[rows, own] = torch.inf
        distances.append(block_BK.min(dim=1).values)
    return torch.cat(distances)
