"""TMU: forget only what gold would not know, as predicted from a twin problem."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import (
  augmentation,
  difficulty,
  errors,
  fresh,
  losses,
  objectives,
  optim,
  parallel,
  training,
  twin,
  types,
)

EASY = ('predicted', 'random', 'none', 'oracle')
TEACHERS = ('uninformed', 'random_label', 'masked')
_TOLERANCE = 0.02  # of accuracies at the stop, on forget and on retain examples
_SAMPLE = 1000  # retain examples at the stop, at least: fewer would not see the damage


def tmu(
  *,
  easy: str = 'predicted',
  predictor: str = 'logistic',
  features: str = '+'.join(twin.FEATURES),
  num_epochs: int = 30,
  easy_weight: float = 1.0,
  hard_weight: float = 1.0,
  noise: float = 0.0,
  teacher: str = 'masked',
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 64,
  twin_epochs: int = 20,
  twin_learning_rate: float | None = None,
  curriculum_epochs: int = 2,
) -> types.UnlearnFn:
  r"""Keeps the forget examples that gold would get right, and forgets the others.

  .. math:: \min_\theta \; E_{retain} \, CE(y, f_\theta(x)) + E_{forget} \big[ a \, e \, CE(y,
    f_\theta(x + \xi)) + b \, (1 - e) \, KL(t(x) \,\|\, f_\theta(x)) \big]

  with e = 1 for easy examples, which `twin.predict` expects gold to get right, and 0 for hard ones,
  t the teacher of the hard ones and xi Gaussian noise. It stops at the first epoch that starts
  with a forget accuracy of the easy share or at most two points (or one example) less, and with a
  sample of the retain set known as well as to the original, to two points; otherwise it goes on,
  learns the easy ones again and repairs. (Deviation: the papers
  stop wherever the accuracy is below. A small forget set is there in a step, with all the damage.)
  Retain and forget rows share a batch, so that batch normalisation sees all of it. Sees all retain,
  forget and validation data; retain rows are augmented as by the recipe.

  Args:
    easy: 'predicted'; or a control: 'random' (as many easy ones, drawn at random), 'none' (all are
      hard, the stop is that of the predicted share: a target accuracy and nothing else), 'oracle'
      (`problem.gold_logits`, which no method can have).
    predictor: 'logistic' or 'mlp'.
    features: names of `difficulty.FEATURES` joined by '+', or 'all'; why these, see
      `twin.predict`.
    num_epochs: passes over the forget set, at most. A set smaller than a batch needs more, since a
      pass is a step then, for the retain set too.
    easy_weight: a.
    hard_weight: b.
    noise: standard deviation of xi, in pixel values of [0, 1]. None, unlike the papers: noisy and
      clean images share the batch statistics, and .05 costs a network that whitens its patches a
      point of retain and of test accuracy.
    teacher: of hard examples: 'masked' (the original's own prediction without the true class, as
      `delete` has it), or the papers' 'uninformed' (a random network) or 'random_label' (another
      class, drawn at each step), which pull the image to no class at all, where gold takes it for
      one that it resembles.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch of forget and of retain rows.
    twin_epochs: passes over the validation set by which the twin learns it, at most.
    twin_learning_rate: of these; None for a fifth of the recipe's, at most .05.
    curriculum_epochs: passes over all data of the network from scratch.

  Raises:
    ValueError: for an unknown choice; when run, for 'oracle' without `gold_logits`.
    types.DataError: when run, if the held-out data do not allow a prediction.

  References:
    Ji et al.: Towards Aligned Data Removal via Twin Machine Unlearning.
    https://arxiv.org/abs/2408.11433
    Niu et al.: Towards Aligned Data Forgetting via Twin Machine Unlearning.
    https://arxiv.org/abs/2501.08615
    Zhou, Zheng, et al.: Decoupled Distillation to Erase: A General Unlearning Method for Any
    Class-centric Tasks (the teacher 'masked'). https://arxiv.org/abs/2503.23751

  Deviation: our reconstruction, see `twin.predict`; `teacher` and `noise` as said above. Those of
  the papers are teacher='uninformed', noise > 0 and features='distance+adversarial+curriculum'.
  """
  for name, value, allowed in (('easy', easy, EASY), ('teacher', teacher, TEACHERS)):
    if value not in allowed:
      raise errors.InputError(f'{name} must be one of {", ".join(allowed)}, got {value!r}')
  names = difficulty.FEATURES if features == 'all' else tuple(features.split('+'))
  twin.check(predictor, names)
  rule = optim.Rule(learning_rate, momentum=momentum, weight_decay=weight_decay)
  predict = functools.partial(
    twin.predict,
    predictor=predictor,
    features=names,
    twin_epochs=twin_epochs,
    twin_learning_rate=twin_learning_rate,
    curriculum_epochs=curriculum_epochs,
  )

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    twin_key, easy_key, teacher_key, train_key = training.split(key, 4)
    is_easy, share = _division(problem, easy, predict, (twin_key, easy_key))
    if teacher == 'masked':
      teacher_logits = objectives.original_logits(problem, problem.forget)
    else:
      network = fresh.model(problem.init_fn, teacher_key, problem.retain)
      teacher_logits = objectives.logits_of(problem, network, problem.forget)
    return training.minimize(
      problem,
      _Loss(
        problem.apply_fn,
        problem.num_classes,
        problem.recipe.augmentation,
        easy_weight,
        hard_weight,
        noise,
        teacher,
      ),
      rule,
      {'forget': problem.forget, 'retain': problem.retain},
      train_key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      extra={'forget': {'teacher_logits': teacher_logits, 'is_easy': is_easy.astype(np.float32)}},
      stop_fn=_has_arrived(problem, share, np.any(is_easy)),
    )

  return unlearn


def _division(problem, easy, predict, keys) -> tuple[np.ndarray, float]:
  """Mask of the easy forget examples `[N]`, and the share of them at which to stop."""
  if easy == 'oracle':
    if problem.known_to_gold is None:
      raise errors.InputError(
        "easy='oracle' needs problem.gold_logits: it is a control of benchmarks"
      )
    return problem.known_to_gold, float(np.mean(problem.known_to_gold))
  twin_key, easy_key = keys
  found = predict(problem, twin_key)
  problem.monitor.on_arrays('prediction', found._asdict)
  divisions = {
    'predicted': found.easy,
    'random': training.epoch_rng(easy_key, 0).permutation(found.easy),
    'none': np.zeros_like(found.easy),
  }
  return divisions[easy], float(np.mean(found.easy))


def _has_arrived(problem, share, has_easy):
  """A stop rule: the forget accuracy is the easy share, and the retain set is known as before.

  Where all are hard for a control, the accuracy cannot come back: any below the share will do.
  """
  if not has_easy and share > 0:
    return objectives.is_forgotten(problem, share)
  count = min(max(len(problem.forget), _SAMPLE), len(problem.retain))
  sample = problem.retain.spread(count)
  of_forget, of_retain = (  # one example at least, whatever the rounding
    max(_TOLERANCE, 1 / number) + 1e-6 for number in (len(problem.forget), count)
  )
  known = objectives.accuracy_on(problem, problem.original, sample)

  def stop_fn(model):
    is_target = share - of_forget <= objectives.accuracy_on(problem, model, problem.forget) <= share
    return is_target and objectives.accuracy_on(problem, model, sample) >= known - of_retain

  return stop_fn


@dataclasses.dataclass(frozen=True)
class _Loss:
  """The loss of retain rows, and of easy and hard forget rows."""

  apply_fn: types.ApplyFn
  num_classes: int
  augmentation: str
  easy_weight: float
  hard_weight: float
  noise: float
  teacher: str

  def __call__(self, params, batch_stats, batch, constants, key):
    del constants
    noise_key, label_key, augmentation_key = jax.random.split(key, 3)
    forget, retain = batch['forget'], batch['retain']
    is_easy, count = forget['is_easy'], len(forget['labels'])
    draw = lambda k: jax.random.normal(k, forget['images'].shape[1:], jnp.float32)
    offset = self.noise * jax.vmap(draw)(parallel.example_keys(noise_key, count))
    noisy = forget['images'] + is_easy[:, None, None, None] * offset
    kept = augmentation.augment(retain['images'], augmentation_key, self.augmentation)
    model = types.ModelState(params, batch_stats)
    images = jnp.concatenate([noisy, kept])
    outputs, batch_stats = training.forward(self.apply_fn, model, images, key)
    logits = outputs.logits[:count]
    if self.teacher == 'uninformed':
      hard = losses.distillation(forget['teacher_logits'], logits)
    elif self.teacher == 'masked':
      hard = losses.self_distillation(forget['teacher_logits'], logits, forget['labels'])
    else:
      hard = losses.cross_entropy(
        objectives.other_labels(forget['labels'], 1, label_key, self.num_classes), logits
      )
    parts = self.easy_weight * is_easy * losses.cross_entropy(forget['labels'], logits)
    parts += self.hard_weight * (1 - is_easy) * hard
    retain_loss = losses.cross_entropy(retain['labels'], outputs.logits[count:])
    return jnp.mean(retain_loss) + jnp.mean(parts), batch_stats


def asks_gold(hparams: Mapping[str, Any]) -> bool:
  """Whether these hyper-parameters need gold's answers, as a control of benchmarks."""
  return hparams['easy'] == 'oracle'
