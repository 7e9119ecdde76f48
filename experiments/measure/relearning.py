"""Relearn time: how soon a model knows the forget set again."""

import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import metrics, optim, parallel, prediction, seeds, training, types
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
  devices = tuple(parallel.local_devices(job.devices))  # this process alone evaluates
  count = len(devices)
  target = max(target_loss, _LEAST_LOSS)
  forget = job.sets['forget']
  loss_fn = training.ClassificationLoss(job.apply_fn, 'forget', 'none')
  step = training.make_step(loss_fn, _OPTIMIZER, devices=devices)
  data = training.put_data({'forget': forget}, devices)
  state = parallel.replicate(training.init_state(model, _OPTIMIZER), devices)
  key = seeds.stream(job.config.evaluation_seed, 'relearn')
  batch_size = count * -(-_BATCH_SIZE // count)
  for epoch in range(job.config.relearn_epochs + 1):
    now = parallel.fetch(state).model
    outputs = prediction.predict(job.apply_fn, now, forget.images, devices=devices)
    if np.mean(metrics.cross_entropy_scores(outputs.logits, forget.labels)) <= target:
      return float(epoch)
    rng = training.epoch_rng(key, epoch)
    batches = {'forget': data_lib.epoch_batches(len(forget), batch_size, rng)}
    state, _ = training.run_steps(step, state, data, batches, key)
  return float(job.config.relearn_epochs + 1)
