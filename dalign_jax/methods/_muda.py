"""MUDA: unlearning by dimensional alignment, self-distillation and alternating training."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dalign_jax import data as data_lib
from dalign_jax import (
  errors,
  losses,
  objectives,
  optim,
  parallel,
  prediction,
  trainable,
  training,
  types,
)

TEACHERS = ('original', 'current', 'unmasked')
BASIS_SOURCES = ('epoch', 'original', 'batch')
DA_TARGETS = ('highest', 'retain')
STOPS = ('validation', 'never')
NORMALIZATIONS = ('auto', 'companions', 'frozen', 'forget_only')

_LEAST_RECOVERY = 4  # steps of recovery for each step of forgetting
_BASIS_EXAMPLES = 5000  # retain rows of a basis at most; features have far fewer dimensions


def muda(
  *,
  rounds: int = 5,
  da_weight: float = 3.0,
  da_target: str = 'retain',
  energy: float = 0.9,
  learning_rate: float = 0.01,
  recover_learning_rate: float | None = None,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 64,
  forget_steps: int = 8,
  stop_at: str = 'validation',
  recover_epochs: int | float = 0.2,
  retain_fraction: float = 1.0,
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
    \lambda \Big[ a - \frac{\|Z_f V_k\|^2}{\|Z_f\|^2} \Big]_+
    \qquad
    \text{recover: } \min_\theta \; E_{retain} \, CE(y, f_\theta)

  with the teacher :math:`\tilde t` = the original without its true-class logit
  (`losses.self_distillation`) and `losses.dimensional_alignment_loss`. Both phases
  are one optax transformation, `optim.alternating`. The target a is the alignment of the retain
  features themselves, or 1 (`da_target`): beyond the former, the loss goes on to lift the forget
  features above gold's alignment, and shrinks the retain eigenspace.

  Where only some images of a class are forgotten, gold still recognises most of them. The first
  term then leaves out the images of that class, by `stop_at`, once they look as unseen images do:
  no more of the batch is recognised than of the validation images of the classes that stay,
  rounded up, and the loss of the image is at least the median of theirs, both under the original.

  Sees the forget data, `retain_fraction` of the retain data, which the recover phase augments as by
  the recipe, and by `stop_at` validation data. Serves any request.

  Args:
    rounds: number of forget and recover rounds.
    da_weight: lambda.
    da_target: the alignment a at which the loss is 0. 'highest': 1; 'retain': that of the retain
      rows in the batch, or of the whole subset where the batch has none.
    energy: share of the retain features' second moment that the basis holds, in (0, 1].
    learning_rate: of SGD in the forget phase.
    recover_learning_rate: of SGD in the recover phase; None for the same.
    momentum: of SGD.
    weight_decay: L2 coefficient, both phases.
    batch_size: global batch of each set.
    forget_steps: steps of a forget phase. A forget set smaller than a batch fills it several times,
      and its loss weighs its share of the batch, so that a single image does not take steps as
      large as a class does.
    stop_at: 'validation' as above; 'never' forgets images whose classes stay as it forgets classes.
      Whole classes are the same in both.
    recover_epochs: passes over the retain subset in a round; .2 is a fifth of it, drawn anew in
      each round. No fewer than four steps for each step of the forget phase, unless it is 0.
    retain_fraction: share of each retained class that is used, in (0, 1], at least one example.
    teacher: 'original', or 'current' for the network itself under stop_gradient (the loss then is
      -log(1 - p_y)), both without the true class; 'unmasked' for the original with it, which holds
      the outputs where they are, so that only the alignment loss forgets.
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
    ValueError: if a choice or a number is not one of the above; when run, if `stop_at` needs
      validation images and there are none.

  References:
    Seo, Kim, Han: Revisiting Machine Unlearning with Dimensional Alignment.
    https://arxiv.org/abs/2407.17710

  Deviation: losses, schedule, the end of the alignment loss, `stop_at` and the treatment of batch
  norm are our reconstruction; the paper's text was not readable to us.
  """
  settings = _Settings(
    da_weight,
    da_target,
    energy,
    teacher,
    temperature,
    basis_source,
    differentiate_basis,
    normalization,
  )
  if stop_at not in STOPS:
    raise errors.InputError(f'stop_at must be one of {", ".join(STOPS)}, got {stop_at!r}')
  if not 0 < retain_fraction <= 1:
    raise errors.InputError(f'retain_fraction must be in (0, 1], got {retain_fraction}')
  recover_rate = learning_rate if recover_learning_rate is None else recover_learning_rate
  forget_rule, recover_rule = (
    optim.Rule(rate, momentum=momentum, weight_decay=weight_decay)
    for rate in (learning_rate, recover_rate)
  )

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    devices = problem.devices
    subset_key, batch_key = training.split(key)
    retain = data_lib.stratified_subset(
      problem.retain, retain_fraction, training.epoch_rng(subset_key, 0)
    )
    starts_anew = reset_on_switch and recover_epochs  # each phase of a round, with its schedule
    times = 1 if starts_anew else rounds  # phases that one schedule is spread over
    recover_steps = math.ceil(recover_epochs * optim.num_steps(len(retain), batch_size, 1))
    if recover_epochs:
      recover_steps = max(recover_steps, _LEAST_RECOVERY * forget_steps)
    filled = objectives.batch_share(problem.forget, batch_size)
    tx = optim.alternating(
      forget=forget_rule.weighed(problem, filled).of(problem, times * forget_steps),
      recover=recover_rule.of(problem, times * recover_steps),
      reset_on_switch=reset_on_switch,
    )
    forget_step = training.make_step(_forget_loss(problem, settings), tx, devices=devices, phase=0)
    recover_step = training.make_step(
      training.ClassificationLoss(problem.apply_fn, 'retain', problem.recipe.augmentation),
      tx,
      devices=devices,
      phase=1,
    )
    stays = np.isin(problem.forget.labels, problem.retain.labels)
    data = training.put_data(
      {'forget': problem.forget, 'retain': retain},
      devices,
      forget={
        'teacher_logits': objectives.original_logits(problem, problem.forget),
        'stays': stays,
      },
    )
    unseen = np.float32(-1), np.float32(np.inf)  # never
    if stop_at == 'validation' and stays.any():
      unseen = _of_unseen(problem)

    spanning = data_lib.stratified_subset(
      retain, min(1.0, _BASIS_EXAMPLES / len(retain)), training.epoch_rng(subset_key, 1)
    )

    def basis_of(model):
      moment = prediction.second_moment(problem.apply_fn, model, spanning.images, devices=devices)
      basis, share = _basis_and_share(moment, energy=energy)
      return parallel.replicate((basis, share, unseen, filled), devices)

    of_original = basis_of(problem.original)

    def round_fn(state, epoch):
      rng = training.epoch_rng(batch_key, epoch)
      basis = of_original
      if basis_source == 'epoch' and epoch:
        basis = basis_of(parallel.fetch(state.model))
      draw = functools.partial(data_lib.epoch_batches, batch_size=batch_size, rng=rng)
      forget = draw(len(problem.forget), num_batches=forget_steps)
      companions = draw(len(retain), num_batches=forget_steps)
      run = functools.partial(training.run_steps, monitor=problem.monitor)
      state, forget_loss = run(
        forget_step,
        state,
        data,
        {'forget': forget, 'retain': companions},
        batch_key,
        constants=basis,
        phase='forget',
      )
      recover = {'retain': draw(len(retain), num_batches=recover_steps)}
      state, recover_loss = run(recover_step, state, data, recover, batch_key, phase='recover')
      return state, {'forget_loss': forget_loss, 'recover_loss': recover_loss}

    state = training.init_state(problem.original, tx)
    return training.run_epochs(round_fn, state, rounds, monitor=problem.monitor, devices=devices)

  return unlearn


@dataclasses.dataclass(frozen=True)
class _Settings:
  """Settings of the forget loss."""

  da_weight: float
  da_target: str
  energy: float
  teacher: str
  temperature: float
  basis_source: str
  differentiate_basis: bool
  normalization: str

  def __post_init__(self):
    choices = {
      'da_target': DA_TARGETS,
      'teacher': TEACHERS,
      'basis_source': BASIS_SOURCES,
      'normalization': NORMALIZATIONS,
    }
    for name, allowed in choices.items():
      if getattr(self, name) not in allowed:
        raise errors.InputError(
          f'{name} must be one of {", ".join(allowed)}, got {getattr(self, name)!r}'
        )
    if not 0 < self.energy <= 1:
      raise errors.InputError(f'energy must be in (0, 1], got {self.energy}')
    if self.differentiate_basis and self.basis_source != 'batch':
      raise errors.InputError(
        f"differentiate_basis needs basis_source='batch', got {self.basis_source!r}"
      )
    if self.basis_source == 'batch' and self.normalization == 'forget_only':
      raise errors.InputError(
        "normalization='forget_only' does not go with basis_source='batch', which puts retain rows "
        'into the batch'
      )
    if not self.temperature > 0:
      raise errors.InputError(f'temperature must be positive, got {self.temperature}')


def _forget_loss(problem, settings):
  """The loss, with what 'auto' normalization means for the network."""
  normalization = settings.normalization
  if normalization == 'auto':
    own = trainable.own_statistics(problem.original.batch_stats)
    has_batch_stats = bool(jax.tree.leaves(own))
    normalization = 'companions' if has_batch_stats else 'forget_only'
  return _ForgetLoss(problem.apply_fn, dataclasses.replace(settings, normalization=normalization))


@dataclasses.dataclass(frozen=True)
class _ForgetLoss:
  """Self-distillation and alignment on the forget rows."""

  apply_fn: types.ApplyFn
  settings: _Settings

  def __call__(self, params, batch_stats, batch, constants, key):
    settings = self.settings
    basis, share, unseen, filled = constants
    with_companions = settings.normalization == 'companions' or settings.basis_source == 'batch'
    forget, companions = batch['forget'], batch['retain']
    images, count = forget['images'], len(forget['images'])
    if with_companions:
      images = jnp.concatenate([images, companions['images']])
    model = types.ModelState(params, batch_stats)
    outputs, batch_stats = training.forward(
      self.apply_fn, model, images, key, keep_statistics=settings.normalization == 'frozen'
    )
    forget_features, retain_features = outputs.features[:count], outputs.features[count:]
    if settings.basis_source == 'batch':
      basis = _batch_basis(retain_features, settings)
    outside = functools.partial(
      losses.dimensional_alignment_loss, basis=basis, axis_name=parallel.AXIS
    )
    excess = outside(forget_features)
    if settings.da_target == 'retain':
      least = outside(retain_features) if with_companions else 1 - share
      excess = jnp.maximum(excess - jax.lax.stop_gradient(least), 0)
    logits = outputs.logits[:count]
    distance = _teacher_distance(forget, logits, settings)
    distance = jnp.where(_is_forgotten(forget, logits, unseen, filled), 0, distance)
    return filled * (jnp.mean(distance) + settings.da_weight * excess), batch_stats


def _is_forgotten(forget, logits, unseen, filled):
  """Rows of classes that stay, once they look as unseen images do, in accuracy and in loss."""
  stays, (accuracy, typical_loss) = forget['stays'], unseen
  right = stays & (jnp.argmax(logits, axis=-1) == forget['labels'])
  num_right, count = jax.lax.psum((jnp.sum(right), jnp.sum(stays)), parallel.AXIS)
  loss = optax.softmax_cross_entropy_with_integer_labels(logits, forget['labels'])
  is_accuracy_low = num_right * filled <= jnp.ceil(accuracy * count * filled)
  return stays & is_accuracy_low & (loss >= typical_loss)


def _of_unseen(problem):
  """The original's accuracy and median loss on validation images of the classes that stay."""
  validation = problem.validation
  kept = validation.take(np.flatnonzero(np.isin(validation.labels, problem.retain.labels)))
  if not len(kept):
    raise errors.InputError(
      "stop_at='validation' needs validation images of the classes that stay, and there are none; "
      "'never' needs none"
    )
  logits = objectives.original_logits(problem, kept)
  losses_of = optax.softmax_cross_entropy_with_integer_labels(logits, kept.labels)
  accuracy = np.mean(logits.argmax(axis=-1) == kept.labels)
  return np.float32(accuracy), np.float32(np.median(losses_of))


def _teacher_distance(forget, logits, settings):
  if settings.teacher == 'unmasked':
    return losses.distillation(forget['teacher_logits'], logits, temperature=settings.temperature)
  teacher_logits = forget['teacher_logits'] if settings.teacher == 'original' else logits
  return losses.self_distillation(
    teacher_logits, logits, forget['labels'], temperature=settings.temperature
  )


def _batch_basis(retain_features, settings):
  moment = losses.second_moment(retain_features, axis_name=parallel.AXIS)
  if settings.differentiate_basis:
    return losses.principal_projector(moment, energy=settings.energy)
  return losses.principal_basis(moment, energy=settings.energy)


@functools.partial(jax.jit, static_argnames='energy')
def _basis_and_share(moment, energy):
  """A principal basis, and the share of the moment that it holds: the retain set's alignment."""
  basis = losses.principal_basis(moment, energy=energy)
  inside = jnp.einsum('ij,ik,jk->', moment, basis, basis, precision=jax.lax.Precision.HIGHEST)
  return basis, inside / jnp.maximum(jnp.trace(moment), 1e-12)
