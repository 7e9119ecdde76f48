"""LoTUS: a student of the original whose certainty on forget images is smoothed away."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import objectives, optim, parallel, training, types


def lotus(
  *,
  num_epochs: int = 10,
  learning_rate: float = 1e-3,
  weight_decay: float = 5e-4,
  batch_size: int = 128,
  smoothing: float = 4.0,
  retain_fraction: float = 0.3,
  gumbel: bool = True,
) -> types.UnlearnFn:
  r"""Distils forget images from the original at a temperature, retain images at its decision.

  .. math:: \min_\theta \; E \, CE(t(x), f_\theta(x)), \quad
    t(x) = \begin{cases} \mathrm{softmax}((z_o(x) + g) / \tau) & x \in forget \\
    \text{one-hot} \arg\max (z_o(x) + g) & x \in retain \end{cases}, \quad
    \tau = e^{\alpha (A_{forget}(\theta) - A_{val}(\theta_o))}

  The temperature is set anew at the start of each epoch: the more certain the student still is of
  the forget images, compared with the original on images that it has not seen, the smoother the
  target. For forget images whose class goes whole, A_val counts as 0. The run stops once the
  student is less accurate on the forget set than the aim by .01. g is Gumbel noise, drawn at each
  step. Sees `retain_fraction` of the retain data, forget and validation data. Serves any request.

  Args:
    num_epochs: passes over the forget set and the retain subset together.
    learning_rate: of AdamW.
    weight_decay: of AdamW.
    batch_size: global batch.
    smoothing: alpha.
    retain_fraction: share of each retained class that is used, in (0, 1], at least one example.
    gumbel: whether Gumbel noise is added to the original's logits.

  References:
    Spartalis, Semertzidis, Gavves, Daras: LoTUS: Large-Scale Machine Unlearning with a Taste of
    Uncertainty. https://arxiv.org/abs/2503.18314

  Deviation: accuracies are not rounded (two decimals in the release); images are not augmented;
  alpha is 4 (2 in the paper), for requests of whole classes, where 2 does little here.
  """
  tx = optim.adamw(learning_rate, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    subset_key, train_key = training.split(key)
    rng = training.epoch_rng(subset_key, 0)
    retain = data_lib.stratified_subset(problem.retain, retain_fraction, rng)
    dataset = types.concatenate(retain, problem.forget)
    is_forget = np.arange(len(dataset)) >= len(retain)
    logits = objectives.original_logits(problem, dataset)
    aim = _aim(problem)
    gap = 0.0

    def stop_fn(model):
      nonlocal gap
      gap = objectives.accuracy_on(problem, model, problem.forget) - aim
      return gap <= -0.01

    return training.minimize(
      problem,
      Smoothing(problem.apply_fn, gumbel),
      tx,
      {'train': dataset},
      train_key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      extra={'train': {'teacher_logits': logits, 'is_forget': is_forget}},
      constants_fn=lambda epoch: np.float32(temperature(smoothing, gap)),
      stop_fn=stop_fn,
    )

  return unlearn


def temperature(smoothing: float, gap: float) -> float:
  """tau, from how far the student's forget accuracy is above its aim."""
  return math.exp(smoothing * gap)


def _aim(problem) -> float:
  """The accuracy to reach: 0 where a class goes whole, else the original's on unseen images."""
  held_out = problem.validation
  if np.isin(problem.forget.labels, problem.retain.labels).any():
    held_out = objectives.validation(problem)
    held_out = held_out.take(np.flatnonzero(np.isin(held_out.labels, problem.retain.labels)))
  return objectives.gold_accuracy(problem, held_out, of_gone=0.0)


@dataclasses.dataclass(frozen=True)
class Smoothing:
  """Cross-entropy to the targets; the temperature is the loss's constants."""

  apply_fn: types.ApplyFn
  gumbel: bool

  def __call__(self, params, batch_stats, batch, tau, key):
    rows, model = batch['train'], types.ModelState(params, batch_stats)
    hard_logits = soft_logits = rows['teacher_logits']
    if self.gumbel:
      draw = jax.vmap(lambda k: jax.random.gumbel(k, (2, soft_logits.shape[1]), jnp.float32))
      noise = draw(parallel.example_keys(key, len(soft_logits)))
      hard_logits, soft_logits = soft_logits + noise[:, 0], soft_logits + noise[:, 1]
    soft = jax.nn.softmax(soft_logits / tau)
    hard = jax.nn.one_hot(jnp.argmax(hard_logits, axis=1), soft.shape[1])
    targets = jnp.where(rows['is_forget'][:, None], soft, hard)
    outputs, batch_stats = training.forward(self.apply_fn, model, rows['images'], key)
    log_probabilities = jax.nn.log_softmax(outputs.logits.astype(jnp.float32))
    return -jnp.mean(jnp.sum(targets * log_probabilities, axis=1)), batch_stats
