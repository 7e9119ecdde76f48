"""Recovery by fine-tuning on retain data alone."""

import jax

from dalign_jax import errors, optim, parallel, training, types
from dalign_jax.recovery import _curve


class _Watch(types.Monitor):
  """Records the forget accuracy after each epoch."""

  def __init__(self, measure):
    self.measure, self.accuracies = measure, []

  def on_epoch(self, epoch, get_state, metrics):
    del epoch, metrics
    self.accuracies.append(self.measure(get_state().model))


def retain_only(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  retain: types.Dataset,
  forget: types.Dataset,
  key: jax.Array,
  *,
  num_epochs: int,
  learning_rate: float,
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  batch_size: int = 128,
  augmentation: str = 'none',
  devices: parallel.Devices = None,
) -> _curve.RecoveryCurve:
  """Forget accuracy while a copy is fine-tuned on retain data alone.

  No forget image is shown. Accuracy that rises above gold's under the same training was dormant in
  the weights.

  Args:
    apply_fn: the network.
    model: the model to attack; it is not changed.
    retain: data to train on.
    forget: data to measure on.
    key: decides batches and augmentation.
    num_epochs: passes over the retain set; a tenth of the recipe's is the protocol's limit.
    learning_rate: of SGD, constant; the protocol runs the recipe's last rate and a tenth of it.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.
    augmentation: 'none', 'crop' or 'crop_flip'.
    devices: devices to use, None for all of them.

  Returns:
    Budgets 0, 1, ..., `num_epochs` epochs, and the accuracies, `[num_epochs + 1]` each.

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
  watch = _Watch(lambda now: _curve.accuracy(apply_fn, now, forget, devices))
  before = watch.measure(model)
  tx = optim.sgd(learning_rate, momentum=momentum, weight_decay=weight_decay)
  options = {'batch_size': batch_size, 'devices': devices, 'monitor': watch}
  _tune(apply_fn, model, retain, key, tx, augmentation, num_epochs=num_epochs, **options)
  return _curve.curve(range(num_epochs + 1), [before, *watch.accuracies])


def _tune(apply_fn, model, retain, key, tx, augmentation, **options):
  """The one place here that trains."""
  loss_fn = training.classification_loss(apply_fn, 'retain', augmentation)
  return training.minimize(loss_fn, tx, model, {'retain': retain}, key, **options)
