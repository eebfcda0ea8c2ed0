"""Trying every network of a run before anything is trained."""

from __future__ import annotations

import numpy as np

from stdiff.config.downstream import NNUNET
from stdiff.config.run import Config
from stdiff.downstream.classify import check_classifier
from stdiff.downstream.networks import build_segmenter, check_image_size, image_features
from stdiff.downstream.nnunet import nnunet_version
from stdiff.runtime.errors import InputError


def check_networks(config: Config) -> None:
    """Build every segmenter and the classifier, and try a training step of each, in seconds.

    Raises:
        InputError: one cannot be built, cannot be trained on images of ``image.size_px`` with this
            batch, or the first segmenter gives no features to compare images by.
    """
    size_px, training = config.image.size_px, config.segmentation.training
    for number, (name, settings) in enumerate(config.segmentation.segmenters.items()):
        if settings.network == NNUNET:
            nnunet_version()
            continue
        try:
            network = build_segmenter(settings)
            check_image_size(network, settings, size_px, training)
            if number == 0:
                image_features(network, np.zeros((1, size_px, size_px), np.uint8))
        except InputError as error:
            raise InputError(f"segmentation.segmenters.{name}: {error}") from error
    if config.classification:
        check_classifier(config)
