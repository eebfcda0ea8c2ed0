"""nnU-Net's trainer with checkpoints that are ours: whole or absent, checked, and no pickles.

Import it when the folders of nnU-Net are set: it asks for them once.
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

# nnU-Net reads PNGs as volumes of one slice, with this distance to the next one.
_SPACING = [999, 1, 1]


class Trainer(nnUNetTrainer):
    """Keeps its state after every epoch, and stops within one when it is asked to.

    As nnU-Net names its folders after the class, and copies the constructor's arguments, it takes
    those of ``nnUNetTrainer``; the rest is said to :meth:`train_in`.
    """

    def train_in(self, checkpoints: CheckpointFolder, seed: int, stream: str) -> None:
        """Train from the newest whole checkpoint until ``num_epochs``; weights are then the last.

        Raises:
            Interrupted: on SIGTERM or SIGINT.
        """
        self._checkpoints, self._seed, self._stream = checkpoints, seed, stream
        self.disable_checkpointing = True  # nnU-Net's own
        self._draw_from("weights")
        self.initialize()
        if (found := checkpoints.load()) is not None:
            self._restore(*found)
            print(f"{stream}: goes on at epoch {self.current_epoch} of {self.num_epochs}")
        with (
            stop_requests() as self._stop,
            tqdm(total=self.num_epochs, initial=self.current_epoch, unit="epoch") as self._bar,
        ):
            if self.current_epoch < self.num_epochs:
                self.run_training()

    def on_epoch_start(self) -> None:
        """Random numbers of an epoch are its own, so that it is the same after a stop."""
        self._draw_from(f"epoch {self.current_epoch}")
        super().on_epoch_start()

    def train_step(self, batch: dict) -> dict:
        """One step, unless the training is asked to stop."""
        if self._stop:
            raise Interrupted(
                f"{self._stream}: stopped in epoch {self.current_epoch} of {self.num_epochs}; "
                f"the state after the one before is in {self._checkpoints.path}. The same command "
                "goes on from there."
            )
        return super().train_step(batch)

    def on_epoch_end(self) -> None:
        """Keep the state."""
        super().on_epoch_end()
        self._checkpoints.save(self.current_epoch, self._tensors(), keep=2)
        self._bar.update()

    def plot_network_architecture(self) -> None:
        """Takes a package that draws graphs."""

    def _draw_from(self, what: str) -> None:
        number = integer_seed(self._seed, f"{self._stream} {what}") % 2**32
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)

    def _tensors(self) -> Tensors:
        """Weights, momenta, the loss' scale on a GPU, and what was logged."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for number, kept in self.optimizer.state_dict()["state"].items():
            tensors[f"momentum.{number}"] = kept["momentum_buffer"]
        if self.grad_scaler is not None:
            tensors["scale"] = torch.tensor(self.grad_scaler.get_scale())
        logged = json.dumps(self.logger.get_checkpoint(), default=float).encode()
        tensors["logged"] = torch.frombuffer(bytearray(logged), dtype=torch.uint8)
        # The decoder names the encoder's weights once more.
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


def masks_by(trainer: Trainer, images_NHW: np.ndarray) -> np.ndarray:
    """Masks (N, H, W) uint8, 255 in the lesion, of uint8 images: by nnU-Net's predictor, which
    averages over mirrored images.
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
