"""SFRon: adaptive ascent on salient weights between steps of fine-tuning."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import importance, losses, parallel, salient_sgd, training, types

_LEAST_LOSS = 1e-3  # in the weights of forget rows


def sfron(
  *,
  num_epochs: int = 10,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 128,
  ascent_weight: float = 25.0,
  loss_exponent: float = 0.5,
  selection_weight: float = 1.0,
  max_norm: float = 7.0,
  forget_every: int = 5,
) -> types.UnlearnFn:
  r"""Alternates a masked ascent on the forget set with descent on the retain set.

  .. math:: \text{forget: } \max_\theta \; \alpha_t \sum_i c_i \, l_i, \quad
    c_i \propto l_i^{-\lambda}, \quad m_j = [F^f_j \ge \gamma F^r_j] \qquad
    \text{retain: } \min_\theta \; E_{retain} \, l

  l_i is an example's cross-entropy; c is constant in the gradient and has mean 1: examples that are
  already forgotten count less. F are diagonal Fisher informations of the original
  (`importance.squared_gradients`). A forget step's gradient is masked by m and clipped; a step of
  it comes before every `forget_every`-th retain step. Both share one SGD, so that momentum and
  decay move all weights. alpha and the learning rate fall by a cosine to 0. Forget batches are
  normalised by running statistics. Sees all retain data, augmented as by the recipe, and all forget
  data. Serves any request.

  Args:
    num_epochs: passes over the retain set.
    learning_rate: of SGD at the start.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch of each set.
    ascent_weight: alpha at the start.
    loss_exponent: lambda.
    selection_weight: gamma.
    max_norm: largest norm of a forget step's gradient.
    forget_every: retain steps for each forget step.

  References:
    Huang, Cheng, Zheng, Wang, He, Li, Huang: Unified Gradient-Based Machine Unlearning with Remain
    Geometry Enhancement. https://arxiv.org/abs/2409.19732

  Deviation: in the weights c, losses count as .001 at least: otherwise rows whose loss is rounded
  to 0, and which have no gradient, take all of the weight, and nothing is forgotten. Fisher
  informations are of single examples (the release squares batch gradients); forget batches are
  normalised by running statistics. The release's moving average has weight 0.
  """
  settings = {'momentum': momentum, 'weight_decay': weight_decay}
  settings |= {'ascent_weight': ascent_weight, 'max_norm': max_norm}

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    devices = problem.devices
    mask = _saliency(problem, selection_weight)
    datasets = {'retain': problem.retain, 'forget': problem.forget}
    steps_in_epoch = -(-len(problem.retain) // batch_size)
    num_steps = max(1, num_epochs * steps_in_epoch)
    tx = salient_sgd.salient_sgd(learning_rate, mask=mask, num_steps=num_steps, **settings)
    forget_loss = AdaptiveAscent(problem.apply_fn, loss_exponent)
    augmentation = problem.recipe.augmentation
    retain_loss = training.ClassificationLoss(problem.apply_fn, 'retain', augmentation)
    steps = {
      'forget': training.make_step(forget_loss, tx, devices=devices, is_ascent=True),
      'retain': training.make_step(retain_loss, tx, devices=devices, is_ascent=False),
    }
    data = training.put_data(datasets, devices)

    def epoch_fn(state, epoch):
      found: dict[str, list] = {'forget': [], 'retain': []}
      batches = training.paired_batches(datasets, batch_size, training.epoch_rng(key, epoch))
      first = epoch * steps_in_epoch
      due = [n for n in range(steps_in_epoch) if (first + n) % forget_every == 0]
      for start, end in itertools.pairwise([*dict.fromkeys([0, *due]), steps_in_epoch]):
        for name in ('forget', 'retain') if start in due else ('retain',):
          batch = {name: batches[name][start : start + 1 if name == 'forget' else end]}
          state, loss = training.run_steps(
            steps[name], state, data, batch, key, phase=name, monitor=problem.monitor
          )
          found[name] += [loss] * len(batch[name])
      return state, {f'{name}_loss': float(np.mean(each)) for name, each in found.items() if each}

    state, monitor = training.init_state(problem.original, tx), problem.monitor
    return training.run_epochs(epoch_fn, state, num_epochs, monitor=monitor, devices=devices)

  return unlearn


def _saliency(problem, weight):
  """Mask of the weights that matter more for the forget set than for the retain set."""
  fisher = lambda dataset: importance.squared_gradients(
    problem.apply_fn, problem.original, dataset, devices=problem.devices
  )
  is_salient = lambda f, r: f + 1e-15 >= weight * (r + 1e-15)
  return jax.tree.map(is_salient, fisher(problem.forget), fisher(problem.retain))


@dataclasses.dataclass(frozen=True)
class AdaptiveAscent:
  """Minus the mean loss of the forget rows, each weighed by a power of its own loss."""

  apply_fn: types.ApplyFn
  exponent: float

  def __call__(self, params, batch_stats, batch, constants, key):
    del constants
    rows, model = batch['forget'], types.ModelState(params, batch_stats)
    outputs, _ = training.forward(self.apply_fn, model, rows['images'], key, keep_statistics=True)
    values = losses.cross_entropy(rows['labels'], outputs.logits)
    weights = jnp.maximum(jax.lax.stop_gradient(values), _LEAST_LOSS) ** -self.exponent
    mean = jax.lax.pmean(jnp.mean(weights), parallel.AXIS)
    return -jnp.mean(weights / mean * values), batch_stats
