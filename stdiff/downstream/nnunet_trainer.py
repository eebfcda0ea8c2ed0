"""nnU-Net's trainer with stdiff's checkpoints: atomic, with checksums, without pickles.

Import this module after setting nnU-Net's folders, which nnU-Net reads once, at import.
"""

from __future__ import annotations

import json
import random

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tqdm import tqdm

from stdiff.runtime.randomness import integer_seed
from stdiff.runtime.stopping import Interrupted, stop_requests
from stdiff.runtime.tensor_files import Tensors
from stdiff.training.checkpoints import CheckpointFolder

# Voxel size in mm that nnU-Net assigns to PNG files, read as volumes of one slice.
_SPACING = [999, 1, 1]


class Trainer(nnUNetTrainer):
    """Saves a checkpoint after every epoch and stops within one on a signal.

    nnU-Net copies the constructor's arguments by name, so the constructor is that of
    ``nnUNetTrainer`` and further arguments are passed to :meth:`train_with_checkpoints`.
    """

    def train_with_checkpoints(self, checkpoints: CheckpointFolder, seed: int, stream: str) -> None:
        """Train from the newest valid checkpoint up to ``num_epochs``.

        Raises:
            Interrupted: on SIGTERM or SIGINT.
        """
        self._checkpoints, self._seed, self._stream = checkpoints, seed, stream
        self.disable_checkpointing = True  # nnU-Net's own
        self._seed_all("weights")
        self.initialize()
        if (found := checkpoints.load()) is not None:
            self._restore(*found)
            print(f"{stream}: resumes at epoch {self.current_epoch} of {self.num_epochs}")
        with (
            stop_requests() as self._stop,
            tqdm(total=self.num_epochs, initial=self.current_epoch, unit="epoch") as self._bar,
        ):
            if self.current_epoch < self.num_epochs:
                self.run_training()

    def on_epoch_start(self) -> None:
        """Seed each epoch separately, so that a resumed training gives the same result."""
        self._seed_all(f"epoch {self.current_epoch}")
        super().on_epoch_start()

    def train_step(self, batch: dict) -> dict:
        """One step, unless a stop was requested."""
        if self._stop:
            raise Interrupted(
                f"{self._stream}: stopped in epoch {self.current_epoch} of {self.num_epochs}; "
                f"the state after the previous epoch is saved in {self._checkpoints.path}. Run the "
                "same command to resume."
            )
        return super().train_step(batch)

    def on_epoch_end(self) -> None:
        """Save a checkpoint."""
        super().on_epoch_end()
        self._checkpoints.save(self.current_epoch, self._tensors(), keep=2)
        self._bar.update()

    def plot_network_architecture(self) -> None:
        """Do nothing; nnU-Net's version needs a plotting package."""

    def _seed_all(self, name: str) -> None:
        """Seed the global generators, which nnU-Net uses, from a stream of this training."""
        number = integer_seed(self._seed, f"{self._stream} {name}") % 2**32
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)

    def _tensors(self) -> Tensors:
        """Weights, momenta, the loss scale on a GPU, and the log."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors[f"momentum.{number}"] = values["momentum_buffer"]
        if self.grad_scaler is not None:
            tensors["scale"] = torch.tensor(self.grad_scaler.get_scale())
        logged = json.dumps(self.logger.get_checkpoint(), default=float).encode()
        tensors["logged"] = torch.frombuffer(bytearray(logged), dtype=torch.uint8)
        # Clone, because encoder weights appear twice: the decoder holds the encoder.
        return {name: value.detach().clone() for name, value in tensors.items()}

    def _restore(self, epoch: int, tensors: Tensors) -> None:
        self.current_epoch = epoch
        self.network.load_state_dict(
            {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
        )
        state = self.optimizer.state_dict()
        state["state"] = {
            int(name.removeprefix("momentum.")): {"momentum_buffer": value.to(self.device)}
            for name, value in tensors.items()
            if name.startswith("momentum.")
        }
        self.optimizer.load_state_dict(state)
        if self.grad_scaler is not None:
            self.grad_scaler.load_state_dict(
                self.grad_scaler.state_dict() | {"scale": float(tensors["scale"])}
            )
        self.logger.load_checkpoint(json.loads(tensors["logged"].numpy().tobytes()))


def predict_masks(trainer: Trainer, images_NHW: np.ndarray) -> np.ndarray:
    """Masks (N, H, W) uint8, 255 in the lesion, of uint8 images.

    Uses nnU-Net's predictor, which averages over mirrored images.
    """
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    masks_NHW = np.zeros_like(images_NHW)
    for mask_HW, image_HW in zip(masks_NHW, tqdm(images_NHW, unit="image"), strict=True):
        lesion_1HW = predictor.predict_single_npy_array(
            image_HW[None, None].astype(np.float32), {"spacing": _SPACING}
        )
        mask_HW[lesion_1HW[0] > 0] = 255
    return masks_NHW
