"""Recovery by fine-tuning on retain data alone."""

import contextlib
import dataclasses

import jax

from dalign_jax import errors, optim, training, types
from dalign_jax.recovery import _curve


class _Watch(types.Monitor):
  """Records the forget accuracy after each epoch."""

  def __init__(self, measure):
    self.measure, self.accuracies = measure, []

  def on_epoch(self, epoch, get_state, metrics):
    del epoch, metrics
    self.accuracies.append(self.measure(get_state().model))


def retain_only(
  problem: types.Problem,
  model: types.ModelState,
  key: jax.Array,
  *,
  num_epochs: int,
  learning_rate: float,
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  batch_size: int = 128,
  augmentation: str = 'none',
) -> _curve.RecoveryCurve:
  """Forget accuracy while a copy is fine-tuned on retain data alone.

  No forget image is shown. Accuracy that rises above gold's under the same training was dormant in
  the weights.

  Args:
    problem: its network, retain data (to train on), forget data (to measure on) and devices.
    model: the model to attack; it is not changed.
    key: decides batches and augmentation.
    num_epochs: passes over the retain set; a tenth of the recipe's is the protocol's limit.
    learning_rate: of SGD, constant; the protocol runs the recipe's last rate and a tenth of it.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.
    augmentation: 'none', 'crop' or 'crop_flip'.

  Returns:
    Budgets 0, 1, ..., `num_epochs` epochs, and the accuracies, `[num_epochs + 1]` each; 0 from
    where the training diverges.

  Raises:
    ValueError: for less than one epoch.

  References:
    Shoaib Ahmed Siddiqui, Adrian Weller, David Krueger, Gintare Karolina Dziugaite, Michael Curtis
    Mozer, Eleni Triantafillou, "From Dormant to Deleted: Tamper-Resistant Unlearning Through
    Weight-Space Regularization", https://arxiv.org/abs/2505.22310.

  Deviation: SGD at a constant rate for fewer epochs, in place of Adam with a cosine schedule.
  """
  if num_epochs < 1:
    raise errors.InputError(f'num_epochs must be 1 or more, got {num_epochs}')
  measure = lambda now: _curve.accuracy(problem.apply_fn, now, problem.forget, problem.devices)
  watch = _Watch(measure)
  with contextlib.suppress(
    training.NonFiniteLossError
  ):  # destroyed: it knows nothing from there on
    training.minimize(
      dataclasses.replace(problem, monitor=watch),
      training.ClassificationLoss(problem.apply_fn, 'retain', augmentation),
      optim.sgd(learning_rate, momentum=momentum, weight_decay=weight_decay),
      {'retain': problem.retain},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      start=model,
    )
  lost = [0.0] * (num_epochs - len(watch.accuracies))
  return _curve.curve(range(num_epochs + 1), [measure(model), *watch.accuracies, *lost])
