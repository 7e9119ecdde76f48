"""UNSIR: noise that maximises a class's error impairs the network, retain data repair it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import adversarial, errors, losses, objectives, optim, prediction, training, types
from dalign_jax import data as data_lib


def unsir(
  *,
  impair_epochs: int = 1,
  repair_epochs: int = 5,
  impair_learning_rate: float = 0.003,
  repair_learning_rate: float = 0.02,
  momentum: float = 0.9,
  batch_size: int = 128,
  retain_fraction: float = 0.3,
  num_noises: int = 256,
  noise_steps: int = 40,
  noise_step_size: float = 0.1,
) -> types.UnlearnFn:
  r"""Learns noise that maximises a class's error, trains on it as that class, then repairs.

  .. math:: \xi_c = \arg\max_{\xi \in [0, 1]} CE(c, f_{\theta_o}(\xi)); \qquad
    \text{impair: } \min_\theta \; E_{retain} \, CE + E_{(\xi_c, c)} \, CE; \qquad
    \text{repair: } \min_\theta \; E_{retain} \, CE

  the two terms of the impair phase with half the weight each. Sees no forget images
  ("zero-glance"), only which classes are forgotten, and `retain_fraction` of the retain data,
  augmented as by the recipe in the repair phase. Class forgetting only.

  Args:
    impair_epochs: passes over the retain subset, an equal number of noise images in every batch.
    repair_epochs: passes over the retain subset after that.
    impair_learning_rate: of SGD.
    repair_learning_rate: of SGD.
    momentum: of SGD, both phases.
    batch_size: global batch of each set.
    retain_fraction: share of each retained class that is used, in (0, 1], at least one example.
    num_noises: noise images of each forgotten class.
    noise_steps: steps of the noise's ascent.
    noise_step_size: length of these steps, in pixel values of [0, 1].

  Raises:
    ValueError: if `retain_fraction` is outside (0, 1]; when run, if no whole class is forgotten.

  References:
    Tarun, Chundawat, Mandal, Kankanhalli: Fast yet Effective Machine Unlearning.
    https://arxiv.org/abs/2111.08947

  Deviation: the noise is an image, kept in [0, 1] in place of the penalty on its size; it ascends
  by signed steps (`adversarial.pgd`) in place of Adam's; SGD in place of Adam in both phases.
  """
  if not 0 < retain_fraction <= 1:
    raise errors.InputError(f'retain_fraction must be in (0, 1], got {retain_fraction}')
  impair_rule = optim.Rule(impair_learning_rate, momentum=momentum)
  repair_rule = optim.Rule(repair_learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    devices = problem.devices
    noise_key, subset_key, batch_key = training.split(key, 3)
    retain = data_lib.stratified_subset(
      problem.retain, retain_fraction, training.epoch_rng(subset_key, 0)
    )
    num_steps = functools.partial(optim.num_steps, len(retain), batch_size)
    tx = optim.alternating(
      impair=impair_rule.of(problem, num_steps(impair_epochs)),
      repair=repair_rule.of(problem, num_steps(repair_epochs)),
    )
    noise = _noise(problem, noise_key, num_noises, noise_steps, noise_step_size)
    sets = {'impair': {'retain': retain, 'noise': noise}, 'repair': {'retain': retain}}
    repair_loss = training.ClassificationLoss(
      problem.apply_fn, 'retain', problem.recipe.augmentation
    )
    steps = {
      'impair': training.make_step(
        objectives.PooledLoss(problem.apply_fn, ('retain', 'noise')), tx, devices=devices, phase=0
      ),
      'repair': training.make_step(repair_loss, tx, devices=devices, phase=1),
    }
    data = training.put_data(sets['impair'], devices)

    def epoch_fn(state, epoch):
      phase = 'impair' if epoch < impair_epochs else 'repair'
      batches = training.paired_batches(
        sets[phase], batch_size, training.epoch_rng(batch_key, epoch)
      )
      state, loss = training.run_steps(
        steps[phase], state, data, batches, batch_key, phase=phase, monitor=problem.monitor
      )
      return state, {f'{phase}_loss': loss}

    state = training.init_state(problem.original, tx)
    num_epochs = impair_epochs + repair_epochs
    return training.run_epochs(
      epoch_fn, state, num_epochs, monitor=problem.monitor, devices=devices
    )

  return unlearn


def _noise(problem, key, num_noises, num_steps, step_size) -> types.Dataset:
  """Images of noise that maximise the error of each forgotten class."""
  labels = np.repeat(problem.forgotten_classes('unsir'), num_noises).astype(np.int32)
  shape = (len(labels), *problem.retain.images.shape[1:])
  start = training.epoch_rng(key, 0).integers(0, 256, shape, np.uint8)

  images = prediction.map_examples(
    _Ascent(problem.apply_fn, step_size, num_steps),
    problem.original,
    {'images': start, 'labels': labels},
    devices=problem.devices,
  )
  return types.Dataset(images, labels, np.array([f'noise_{i}' for i in range(len(labels))]))


@dataclasses.dataclass(frozen=True)
class _Ascent:
  """Noise images after their ascent, as bytes."""

  apply_fn: types.ApplyFn
  step_size: float
  num_steps: int

  def __call__(self, model, batch):
    def loss_fn(images):
      outputs, _ = self.apply_fn(model, images, train=False)
      return losses.cross_entropy(batch['labels'], outputs.logits)

    start = training.to_float(batch['images'])
    images = adversarial.pgd(
      loss_fn, start, epsilon=1.0, step_size=self.step_size, num_steps=self.num_steps
    )
    return jnp.round(images * 255).astype(jnp.uint8)
