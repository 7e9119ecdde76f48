"""Bad teacher: on the forget set the student learns from a network that knows nothing."""

import jax
import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import errors, fresh, objectives, optim, prediction, training, types


def bad_teacher(
  *,
  num_epochs: int = 3,
  learning_rate: float = 1e-4,
  batch_size: int = 128,
  retain_fraction: float = 0.3,
  temperature: float = 1.0,
) -> types.UnlearnFn:
  r"""Distils from the original on retain data, from a random network on forget data.

  .. math:: \min_\theta \; E_{x \in retain} \, KL_\tau(f_{\theta_o}(x) \,\|\, f_\theta(x)) +
    E_{x \in forget} \, KL_\tau(f_{random}(x) \,\|\, f_\theta(x))

  on batches drawn from both sets together, so that each has the weight of its size. Sees all forget
  images and `retain_fraction` of the retain images, none augmented, and no labels but to draw that
  share from every class. Serves any request.

  Args:
    num_epochs: passes over both sets together.
    learning_rate: of Adam.
    batch_size: global batch.
    retain_fraction: share of each retained class that is used, in (0, 1], at least one example.
    temperature: tau.

  Raises:
    ValueError: if `retain_fraction` is outside (0, 1] or `temperature` is not positive.

  References:
    Chundawat, Tarun, Mandal, Kankanhalli: Can Bad Teaching Induce Forgetting? Unlearning in Deep
    Networks using an Incompetent Teacher. https://arxiv.org/abs/2205.08096

  Deviation: images are not augmented. The random network is drawn as the network's own
  initialisation draws it; one that is drawn otherwise teaches other outputs, and so decides the
  result. The released code divides the divergence by the number of classes, which Adam makes up
  for.
  """
  if not 0 < retain_fraction <= 1:
    raise errors.InputError(f'retain_fraction must be in (0, 1], got {retain_fraction}')
  if not temperature > 0:
    raise errors.InputError(f'temperature must be positive, got {temperature}')

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    subset_key, init_key, train_key = training.split(key, 3)
    retain = data_lib.stratified_subset(
      problem.retain, retain_fraction, training.epoch_rng(subset_key, 0)
    )
    uninformed = fresh.model(problem.init_fn, init_key, retain)
    teachers = ((problem.original, retain), (uninformed, problem.forget))
    teacher_logits = [
      prediction.predict(problem.apply_fn, model, d.images, devices=problem.devices).logits
      for model, d in teachers
    ]
    return training.minimize(
      problem,
      objectives.MeanLoss(
        problem.apply_fn,
        'train',
        objectives.Distillation(temperature),
        train=True,
      ),
      optim.adam(learning_rate),
      {'train': types.concatenate(retain, problem.forget)},
      train_key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      extra={'train': {'teacher_logits': np.concatenate(teacher_logits)}},
    )

  return unlearn
