"""MUDA: unlearning by dimensional alignment, self-distillation and alternating training."""

import jax
import jax.numpy as jnp

from dalign_jax import data as data_lib
from dalign_jax import losses, optim, parallel, prediction, training, types

TEACHERS = ('original', 'current', 'unmasked')
BASIS_SOURCES = ('epoch', 'original', 'batch')
NORMALIZATIONS = ('auto', 'companions', 'frozen', 'forget_only')


def muda(
  *,
  rounds: int = 5,
  da_weight: float = 5.0,
  energy: float = 0.9,
  learning_rate: float = 0.01,
  recover_learning_rate: float | None = None,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 64,
  forget_epochs: int = 1,
  recover_epochs: int = 1,
  retain_fraction: float = 0.1,
  teacher: str = 'original',
  temperature: float = 1.0,
  basis_source: str = 'epoch',
  differentiate_basis: bool = False,
  normalization: str = 'auto',
  reset_on_switch: bool = True,
) -> types.UnlearnFn:
  r"""Alternates a forget phase and a recover phase, and ends on recover.

  Each round takes the principal basis V_k of the features of a retain subset, then

  .. math::
    \text{forget: } \min_\theta \; E_{forget} \, KL(\tilde t \,\|\, f_\theta) +
    \lambda \Big( 1 - \frac{\|Z_f V_k\|^2}{\|Z_f\|^2} \Big)
    \qquad
    \text{recover: } \min_\theta \; E_{retain} \, CE(y, f_\theta)

  with the teacher :math:`\tilde t` = the original without its true-class logit
  (`losses.self_distillation`) and the alignment loss of `losses.dimensional_alignment`. Both phases
  are one optax transformation, `optim.alternating`. The aim is gold's alignment, not the highest:
  too large a `da_weight` overshoots it. Sees the forget data and `retain_fraction` of the retain
  data. Where only some examples of a class are forgotten, the masked teacher overshoots, since gold
  still recognises many of them; `teacher='unmasked'` then takes the original as it is.

  Args:
    rounds: number of forget and recover rounds.
    da_weight: lambda.
    energy: share of the retain features' second moment that the basis holds, in (0, 1].
    learning_rate: of SGD in the forget phase.
    recover_learning_rate: of SGD in the recover phase; None for the same.
    momentum: of SGD.
    weight_decay: L2 coefficient, both phases.
    batch_size: global batch of each set.
    forget_epochs: passes over the forget set in a round.
    recover_epochs: passes over the retain subset in a round.
    retain_fraction: share of the retain set that is used, in (0, 1].
    teacher: 'original', or 'current' for the network itself under stop_gradient (the loss then is
      -log(1 - p_y)), both without the true class; 'unmasked' for the original with it.
    temperature: of the self-distillation.
    basis_source: 'epoch' (the current network's basis at the start of each round), 'original', or
      'batch' (of the retain rows in each forget batch).
    differentiate_basis: with basis_source='batch', let the gradient flow through the eigenspace.
    normalization: what batch norm sees in the forget phase. 'companions': an equal share of retain
      rows rides along in the batch, so that the statistics are those of both sets, while the loss
      reads the forget rows only (a one-class batch on its own statistics does not forget: the
      normalisation removes the class); 'frozen': the running statistics; 'forget_only': the forget
      rows' own. 'auto': companions for a network with batch statistics, else forget_only.
    reset_on_switch: start the momenta of a phase afresh.

  Returns:
    The unlearning function.

  Raises:
    ValueError: if a choice or a number is not one of the above.

  References:
    Seo, Kim, Han: Revisiting Machine Unlearning with Dimensional Alignment.
    https://arxiv.org/abs/2407.17710

  Deviation: losses, schedule and the treatment of batch norm are our reconstruction; the paper's
  text was not readable to us.
  """
  _check_choice('teacher', teacher, TEACHERS)
  _check_choice('basis_source', basis_source, BASIS_SOURCES)
  _check_choice('normalization', normalization, NORMALIZATIONS)
  if not 0 < retain_fraction <= 1:
    raise ValueError(f'retain_fraction must be in (0, 1], got {retain_fraction}')
  if not 0 < energy <= 1:
    raise ValueError(f'energy must be in (0, 1], got {energy}')
  if differentiate_basis and basis_source != 'batch':
    raise ValueError(f"differentiate_basis needs basis_source='batch', got {basis_source!r}")
  sgd = lambda rate: optim.sgd(rate, momentum=momentum, weight_decay=weight_decay)
  tx = optim.alternating(
    forget=sgd(learning_rate),
    recover=sgd(learning_rate if recover_learning_rate is None else recover_learning_rate),
    reset_on_switch=reset_on_switch,
  )
  subspace = losses.principal_projector if differentiate_basis else losses.principal_basis

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    apply_fn, devices = problem.apply_fn, problem.devices
    subset_key, batch_key = jax.random.split(key)
    retain = _subset(problem.retain, retain_fraction, subset_key)
    has_batch_stats = bool(jax.tree.leaves(problem.original.batch_stats))
    mode = normalization
    if mode == 'auto':
      mode = 'companions' if has_batch_stats else 'forget_only'

    def forget_loss(params, batch_stats, batch, basis, key):
      del key
      forget, companions = batch['forget'], batch['retain']
      images, count = forget['images'], len(forget['images'])
      if mode == 'companions' or basis_source == 'batch':
        images = jnp.concatenate([images, companions['images']])
      outputs, batch_stats = apply_fn(
        types.ModelState(params, batch_stats), images, train=mode != 'frozen'
      )
      logits, features = outputs.logits[:count], outputs.features[:count]
      if basis_source == 'batch':
        moment = losses.second_moment(outputs.features[count:], axis_name=parallel.AXIS)
        basis = subspace(moment, energy=energy)
      if teacher == 'unmasked':
        distance = losses.distillation(forget['teacher_logits'], logits, temperature=temperature)
      else:
        teacher_logits = forget['teacher_logits'] if teacher == 'original' else logits
        distance = losses.self_distillation(
          teacher_logits, logits, forget['labels'], temperature=temperature
        )
      alignment = losses.dimensional_alignment(features, basis, axis_name=parallel.AXIS)
      return jnp.mean(distance) + da_weight * alignment, batch_stats

    def recover_loss(params, batch_stats, batch, constants, key):
      del constants, key
      model = types.ModelState(params, batch_stats)
      outputs, batch_stats = apply_fn(model, batch['retain']['images'], train=True)
      return jnp.mean(losses.cross_entropy(batch['retain']['labels'], outputs.logits)), batch_stats

    def basis_of(model):
      moment = prediction.second_moment(apply_fn, model, retain.images, devices=devices)
      return parallel.replicate(losses.principal_basis(moment, energy=energy), devices)

    forget_step = training.make_step(forget_loss, tx, devices=devices, phase=0)
    recover_step = training.make_step(recover_loss, tx, devices=devices, phase=1)
    teacher_logits = prediction.predict(
      apply_fn, problem.original, problem.forget.images, devices=devices
    ).logits
    data = training.put_data(
      {'forget': problem.forget, 'retain': retain},
      devices,
      forget={'teacher_logits': teacher_logits},
    )
    fixed_basis = None if basis_source == 'epoch' else basis_of(problem.original)

    def round_fn(state, epoch):
      rng = training.epoch_rng(batch_key, epoch)
      basis = basis_of(parallel.fetch(state.model)) if fixed_basis is None else fixed_basis
      batches = _repeat_epochs(len(problem.forget), batch_size, rng, forget_epochs)
      companions = data_lib.epoch_batches(len(retain), batch_size, rng, num_batches=len(batches))
      state, forget_value = training.run_steps(
        forget_step,
        state,
        data,
        {'forget': batches, 'retain': companions},
        batch_key,
        constants=basis,
        phase='forget',
        monitor=problem.monitor,
      )
      batches = _repeat_epochs(len(retain), batch_size, rng, recover_epochs)
      state, recover_value = training.run_steps(
        recover_step,
        state,
        data,
        {'retain': batches},
        batch_key,
        phase='recover',
        monitor=problem.monitor,
      )
      return state, {'forget_loss': forget_value, 'recover_loss': recover_value}

    state = training.init_state(problem.original, tx)
    return training.run_epochs(round_fn, state, rounds, monitor=problem.monitor, devices=devices)

  return unlearn


def _subset(dataset, fraction, key):
  size = max(1, round(fraction * len(dataset)))
  rng = training.epoch_rng(key, 0)
  return dataset.take(rng.permutation(len(dataset))[:size])


def _repeat_epochs(num_examples, batch_size, rng, epochs):
  num_batches = epochs * -(-num_examples // batch_size)
  return data_lib.epoch_batches(num_examples, batch_size, rng, num_batches=num_batches)


def _check_choice(name, value, choices):
  if value not in choices:
    raise ValueError(f'{name} must be one of {", ".join(choices)}, got {value!r}')
