"""Relearning: how soon a model knows the forget set again when it is trained on it."""

from collections.abc import Iterator

import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import metrics, optim, parallel, prediction, recovery, seeds, training, types
from experiments.problem import preparation

_OPTIMIZER, _BATCH_SIZE = optim.sgd(0.01, momentum=0.9), 64
_LEAST_LOSS = 0.01  # nats; below it, losses of two models that know the set differ by chance


def relearn_epochs(job: preparation.Job, model: types.ModelState, target_loss: float) -> float:
  """Epochs of fine-tuning a copy on the forget set until its loss is the original's.

  A model that has only hidden its knowledge is back after fewer epochs than gold.

  Args:
    job: the problem; `--relearn_epochs` is the most that is tried.
    model: where to start; it is not changed.
    target_loss: mean cross-entropy of the original on the forget set, nats.

  Returns:
    The number of epochs, from 0; one more than `--relearn_epochs` where none is enough.

  Deviation: a target below 0.01 nats is raised to that.
  """
  target, labels = max(target_loss, _LEAST_LOSS), job.sets['forget'].labels
  for epoch, logits in enumerate(_epochs(job, model, job.config.relearn_epochs)):
    if np.mean(metrics.cross_entropy_scores(logits, labels)) <= target:
      return float(epoch)
  return float(job.config.relearn_epochs + 1)


def curve(
  job: preparation.Job, model: types.ModelState, *, num_epochs: int
) -> recovery.RecoveryCurve:
  """Forget accuracy while a copy is fine-tuned on the forget set, after 0, 1, ... epochs."""
  labels = job.sets['forget'].labels
  rates = [metrics.accuracy(logits, labels) for logits in _epochs(job, model, num_epochs)]
  return recovery.RecoveryCurve(np.arange(num_epochs + 1.0), np.array(rates))


def _epochs(job, model, num_epochs) -> Iterator[np.ndarray]:
  """Logits of the forget set before and after each epoch on it."""
  devices = tuple(parallel.local_devices(job.devices))  # this process alone evaluates
  count = len(devices)
  forget = job.sets['forget']
  loss_fn = training.ClassificationLoss(job.apply_fn, 'forget', 'none')
  step = training.make_step(loss_fn, _OPTIMIZER, devices=devices)
  data = training.put_data({'forget': forget}, devices)
  state = parallel.replicate(training.init_state(model, _OPTIMIZER), devices)
  key = seeds.stream(job.config.evaluation_seed, 'relearn')
  batch_size = count * -(-_BATCH_SIZE // count)
  for epoch in range(num_epochs + 1):
    now = parallel.fetch(state).model
    outputs = prediction.predict(job.apply_fn, now, forget.images, devices=devices)
    logits = np.asarray(outputs.logits)
    yield logits if np.isfinite(logits).all() else _wrong(logits, forget.labels)
    rng = training.epoch_rng(key, epoch)
    batches = {'forget': data_lib.epoch_batches(len(forget), batch_size, rng)}
    try:
      state, _ = training.run_steps(step, state, data, batches, key)
    except training.NonFiniteLossError:  # destroyed: it knows nothing from there on
      for _ in range(epoch, num_epochs):
        yield _wrong(logits, forget.labels)
      return


def _wrong(logits, labels):
  """Logits of a network that knows nothing: every label is wrong."""
  is_label = labels if labels.ndim > 1 else labels[:, None] == np.arange(logits.shape[1])
  return np.where(is_label, np.float32(-1), np.float32(1))
