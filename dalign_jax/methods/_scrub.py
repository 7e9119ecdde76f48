"""SCRUB: a student that leaves its teacher on the forget set and follows it on the retain set."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import augmentation, errors, losses, objectives, optim, parallel, training, types


def scrub(
  *,
  num_epochs: int = 5,
  forget_epochs: int = 2,
  cross_entropy_weight: float = 0.99,
  distillation_weight: float = 0.001,
  temperature: float = 4.0,
  learning_rate: float = 0.01,
  forget_learning_rate: float = 3e-3,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 128,
  rewind: bool = False,
) -> types.UnlearnFn:
  r"""Moves away from the original on the forget set and follows it on the retain set, in turn.

  .. math::
    \text{forget: } \max_\theta \; E_{forget} \, KL_\tau(f_{\theta_o} \,\|\, f_\theta) \qquad
    \text{retain: } \min_\theta \; E_{retain} \, \gamma \, CE(y, f_\theta) +
    \alpha \, KL_\tau(f_{\theta_o} \,\|\, f_\theta)

  Each epoch is a retain pass; in the first `forget_epochs` epochs a forget pass follows it. Both
  phases are one optax transformation, `optim.alternating`. The teacher is the original throughout.
  Forget batches are normalised by the running statistics. Sees all retain data, augmented as by the
  recipe, all forget data, and with `rewind` the validation data. Serves any request.

  Args:
    num_epochs: passes over the retain set.
    forget_epochs: in how many of these epochs, from the first on, a forget pass follows; choose
      fewer than `num_epochs`, or the run ends on an ascent that nothing repairs.
    cross_entropy_weight: gamma.
    distillation_weight: alpha.
    temperature: tau of both KL terms.
    learning_rate: of SGD in the retain phase.
    forget_learning_rate: of SGD in the forget phase.
    momentum: of SGD.
    weight_decay: L2 coefficient of the retain phase.
    batch_size: global batch.
    rewind: return the model after that epoch whose error on the forget set is nearest to the error
      that the last model has on validation images of the forget set's classes (SCRUB+R). The epochs
      are run a second time for it, so that no more than two models are kept.

  Returns:
    The unlearning function.

  Raises:
    ValueError: if `temperature` is not positive.
    DataError: when run, if `rewind` lacks validation images of the classes to forget.

  References:
    Kurmanji, Triantafillou, Hayes, Triantafillou: Towards Unbounded Machine Unlearning.
    https://arxiv.org/abs/2302.09880

  Deviation: the retain pass comes first, since the forget loss has no slope at the original; forget
  batches are normalised by running statistics, have a learning rate of their own and no weight
  decay; momentum restarts where the kind of pass changes, and a schedule is as long as the passes
  that follow each other.
  """
  if not temperature > 0:
    raise errors.InputError(f'temperature must be positive, got {temperature}')
  forget_rule = optim.Rule(forget_learning_rate, momentum=momentum)
  retain_rule = optim.Rule(learning_rate, momentum=momentum, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    devices = problem.devices
    num_steps = lambda dataset, passes: optim.num_steps(len(dataset), batch_size, passes)
    tx = optim.alternating(
      forget=forget_rule.of(problem, num_steps(problem.forget, 1)),
      retain=retain_rule.of(problem, num_steps(problem.retain, max(1, num_epochs - forget_epochs))),
    )
    distillation = objectives.Distillation(temperature, weight=-1.0)
    forget_loss = objectives.MeanLoss(problem.apply_fn, 'forget', distillation)
    weights = (cross_entropy_weight, distillation_weight, temperature)
    retain_loss = _RetainLoss(problem.apply_fn, problem.recipe.augmentation, *weights)
    steps = {
      'forget': training.make_step(forget_loss, tx, devices=devices, phase=0),
      'retain': training.make_step(retain_loss, tx, devices=devices, phase=1),
    }
    datasets = {'forget': problem.forget, 'retain': problem.retain}
    teacher_logits = objectives.original_logits(problem, problem.forget)
    data = training.put_data(datasets, devices, forget={'teacher_logits': teacher_logits})
    teacher = parallel.replicate(problem.original, devices)

    def run(monitor, after_epoch=None):
      def epoch_fn(state, epoch):
        rng, metrics = training.epoch_rng(key, epoch), {}
        for name in ('retain', 'forget') if epoch < forget_epochs else ('retain',):
          batches = training.paired_batches({name: datasets[name]}, batch_size, rng)
          state, metrics[f'{name}_loss'] = training.run_steps(
            steps[name], state, data, batches, key, constants=teacher, phase=name, monitor=monitor
          )
        if after_epoch:
          after_epoch(parallel.fetch(state).model)
        return state, metrics

      state = training.init_state(problem.original, tx)
      return training.run_epochs(epoch_fn, state, num_epochs, monitor=monitor, devices=devices)

    validation = _like_forget(problem) if rewind and num_epochs else None
    model = run(problem.monitor)
    return model if validation is None else _rewound(problem, validation, model, run)

  return unlearn


@dataclasses.dataclass(frozen=True)
class _RetainLoss:
  """Cross-entropy, and distillation from the original, which is the loss's constants."""

  apply_fn: types.ApplyFn
  augmentation: str
  cross_entropy_weight: float
  distillation_weight: float
  temperature: float

  def __call__(self, params, batch_stats, batch, teacher, key):
    rows = batch['retain']
    images = augmentation.augment(rows['images'], key, self.augmentation)
    model = types.ModelState(params, batch_stats)
    outputs, batch_stats = training.forward(self.apply_fn, model, images, key)
    taught, _ = self.apply_fn(teacher, images, train=False)
    cross_entropy = losses.cross_entropy(rows['labels'], outputs.logits)
    distillation = losses.distillation(taught.logits, outputs.logits, temperature=self.temperature)
    loss = self.cross_entropy_weight * cross_entropy + self.distillation_weight * distillation
    return jnp.mean(loss), batch_stats


def _like_forget(problem):
  """Validation images of the classes to forget."""
  is_like_forget = np.isin(problem.validation.labels, problem.forget.labels)
  if not is_like_forget.any():
    raise types.DataError('rewind needs validation images of the classes to forget, there are none')
  return problem.validation.take(np.flatnonzero(is_like_forget))


def _rewound(problem, validation, last, run):
  """The model of that epoch whose forget error is nearest to the last model's validation error."""
  target = objectives.accuracy_on(problem, last, validation)
  best, best_gap = last, np.inf

  def after_epoch(model):
    nonlocal best, best_gap
    gap = abs(objectives.accuracy_on(problem, model, problem.forget) - target)
    if gap <= best_gap:  # of equally good ones the latest, which has recovered most
      best, best_gap = model, gap

  run(types.Monitor(), after_epoch)
  return best
