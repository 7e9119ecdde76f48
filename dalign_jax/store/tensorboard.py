"""TensorBoard event files of a run's epochs, without TensorFlow."""

from collections.abc import Mapping
import importlib.util
import pathlib

from dalign_jax import errors


class Writer:
  """Writes the numbers of each epoch under `tensorboard/` of a model's folder."""

  def __init__(self, folder: pathlib.Path, finished_epochs: int):
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
