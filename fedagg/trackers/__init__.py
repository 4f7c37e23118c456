"""Trackers: a run shown elsewhere while it runs, in TensorBoard, Weights & Biases, MLflow or a place of the user's own.

The run directory stays the source of truth. A tracker is told what is written there and can change none of it.
"""

from fedagg.trackers.base import About, Tracker
from fedagg.trackers.mlflow import MLflow
from fedagg.trackers.tensorboard import TensorBoard
from fedagg.trackers.wandb import WandB

__all__ = ["About", "MLflow", "TensorBoard", "Tracker", "WandB"]
