"""TensorBoard event files, without TensorFlow: numbers of epochs, settings, tables and figures."""

from collections.abc import Mapping
import importlib.util
import pathlib
from typing import Any

import numpy as np

from dalign_jax import errors


class Writer:
  """Writes under `tensorboard/` of a folder, a model's or a problem's.

  Args:
    folder: of the model or problem.
    finished_epochs: what an earlier, stopped run wrote after them is taken back.
  """

  def __init__(self, folder: pathlib.Path, finished_epochs: int = 0):
    import tensorboardX  # an extra

    self._writer = tensorboardX.SummaryWriter(
      str(folder / 'tensorboard'),
      purge_step=finished_epochs + 1 if finished_epochs else None,
      flush_secs=1,
    )

  def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
    """The numbers after `epoch` epochs; on disk within about a second."""
    for name, value in numbers.items():
      self._writer.add_scalar(name, value, epoch)

  def write_text(self, name: str, markdown: str) -> None:
    """A text or a table in Markdown."""
    self._writer.add_text(name, markdown)

  def write_image(self, name: str, image: np.ndarray) -> None:
    """An image `[H, W, 3]` of uint8."""
    self._writer.add_image(name, image, dataformats='HWC')

  def write_settings(
    self, name: str, settings: Mapping[str, Any], numbers: Mapping[str, float]
  ) -> None:
    """A line of the tab of hyper-parameters.

    Args:
      name: of the run there.
      settings: the hyper-parameters; what is no number, text or truth value is written as text.
      numbers: what came of them.
    """
    plain = {
      k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()
    }
    self._writer.add_hparams(plain, dict(numbers), name=name)

  def close(self) -> None:
    self._writer.close()


def require() -> None:
  """Raises where the package is missing that writes event files.

  Raises:
    errors.InputError: that says how to install it.
  """
  if importlib.util.find_spec('tensorboardX') is None:
    raise errors.InputError(
      "needs tensorboardX: pip install 'dalign-jax[tensorboard]'", argument='tensorboard'
    )
