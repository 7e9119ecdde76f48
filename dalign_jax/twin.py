"""The twin problem: a forgetting whose gold is known, from which to learn what gold would know.

The original M_o is trained further on held-out data V as well: the twin M_t. Forgetting V from M_t
has a gold that is at hand, M_o itself. So every example of V has a free label, whether M_o is right
on it, from which a predictor learns to say the same of the forget set.
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from sklearn import (
  calibration,
  linear_model,
  model_selection,
  neural_network,
  pipeline,
  preprocessing,
)

from dalign_jax import difficulty, objectives, optim, training, types

PREDICTORS = ('logistic', 'mlp')
_LEAST = 5  # examples of either label that a predictor needs: one for each fold


class Prediction(NamedTuple):
  """What gold is expected to know.

  Attributes:
    easy: bool `[N]`, whether gold would be right on the forget example.
    chance: `[N]` the predicted probability of that.
    held_out_easy: bool `[V]`, whether the original is right on the held-out example.
    held_out_chance: `[V]` the prediction for it by a predictor that has not seen it.
    features: `[N, K]` of the forget set.
    held_out_features: `[V, K]`.
  """

  easy: np.ndarray
  chance: np.ndarray
  held_out_easy: np.ndarray
  held_out_chance: np.ndarray
  features: np.ndarray
  held_out_features: np.ndarray


def predict(
  problem: types.Problem,
  key: jax.Array,
  *,
  predictor: str = 'logistic',
  features: Sequence[str] = difficulty.FEATURES,
  max_epochs: int = 20,
  learning_rate: float = 0.01,
  curriculum_epochs: int = 2,
) -> Prediction:
  """Predicts on which forget examples gold would be right.

  Args:
    problem: its validation set is V; it must not have been trained on.
    key: of the twin's and the curriculum networks' training.
    predictor: 'logistic' regression or 'mlp' (32 and 16 hidden units, calibrated).
    features: of `difficulty.FEATURES`.
    max_epochs: the twin's epochs, at most; it stops when V's accuracy is that of the forget set
      under the original.
    learning_rate: of the twin's SGD.
    curriculum_epochs: of the networks from scratch.

  Returns:
    The prediction; its easy share follows from the held-out data, where the predicted share is the
    original's accuracy.

  Raises:
    ValueError: for an unknown predictor or feature, held-out data without the forget set's classes,
      or too few of them to learn from.

  References:
    Niu et al.: Aligned forgetting by twin machine unlearning. https://arxiv.org/abs/2408.11433,
    https://arxiv.org/abs/2501.08615

  Deviation: the paper fine-tunes on extra data; the stop rule, margin and instability among the
  features, standardisation by the twin set and the threshold are ours.
  """
  if predictor not in PREDICTORS:
    raise ValueError(f'predictor must be one of {", ".join(PREDICTORS)}, got {predictor!r}')
  held_out = _held_out(problem)
  trained = types.concatenate(problem.retain, problem.forget)
  twin_key, *keys = jax.random.split(key, 5)
  twin = _twin(problem, held_out, trained, twin_key, max_epochs, learning_rate)
  everything = types.concatenate(trained, held_out)
  curricula = [
    _curriculum(problem, dataset, keys[2 * i : 2 * i + 2], curriculum_epochs)
    for i, dataset in enumerate((everything, trained))
  ]
  measure = lambda *args: difficulty.measure(
    problem.apply_fn, *args, names=features, devices=problem.devices
  )
  held_out_features = measure(twin, curricula[0], held_out, trained)
  forget_features = measure(problem.original, curricula[1], problem.forget, problem.retain)
  logits = objectives.original_logits(problem, held_out)
  held_out_easy = logits.argmax(axis=1) == held_out.labels
  chance, held_out_chance = _learn(predictor, held_out_features, held_out_easy, forget_features)
  threshold = np.quantile(held_out_chance, 1 - held_out_easy.mean())
  return Prediction(
    chance > threshold,
    chance,
    held_out_easy,
    held_out_chance,
    forget_features,
    held_out_features,
  )


def _held_out(problem) -> types.Dataset:
  """The validation examples of the forget set's classes."""
  wanted = np.unique(problem.forget.labels)
  missing = np.setdiff1d(wanted, problem.validation.labels)
  if len(missing):
    raise ValueError(f'validation must hold the classes to forget, it lacks {missing.tolist()}')
  return problem.validation.take(np.flatnonzero(np.isin(problem.validation.labels, wanted)))


def _twin(problem, held_out, trained, key, max_epochs, learning_rate) -> types.ModelState:
  """The original trained on with V, until it knows V as well as it knows the forget set."""
  target = objectives.accuracy_on(problem, problem.original, problem.forget)
  recipe = problem.recipe
  return training.minimize(
    training.classification_loss(problem.apply_fn, 'train', recipe.augmentation),
    optim.sgd(learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay),
    problem.original,
    {'train': types.concatenate(trained, held_out)},
    key,
    num_epochs=max_epochs,
    batch_size=recipe.batch_size,
    devices=problem.devices,
    stop_fn=lambda model: objectives.accuracy_on(problem, model, held_out) >= target,
  )


def _curriculum(problem, dataset, keys, num_epochs) -> types.ModelState:
  """A network from scratch that has seen the data for a short time: it knows the easy examples."""
  recipe = dataclasses.replace(problem.recipe, num_epochs=num_epochs, warmup_epochs=0.0)
  init_key, fit_key = keys
  model = problem.init_fn(init_key)
  return training.fit(problem.apply_fn, model, dataset, recipe, fit_key, devices=problem.devices)


def _learn(predictor, features, is_easy, target_features):
  """Chances `[N]` of the target, and out-of-fold chances `[V]` of the examples learned from."""
  counts = np.bincount(is_easy.astype(int), minlength=2)
  if counts.min() < _LEAST:
    raise ValueError(
      f'validation must hold at least {_LEAST} examples of the forgotten classes that the original '
      f'gets right and {_LEAST} that it gets wrong, got {counts[1]} and {counts[0]}'
    )
  model = pipeline.make_pipeline(preprocessing.StandardScaler(), _classifier(predictor))
  folds = model_selection.StratifiedKFold(5, shuffle=True, random_state=0)
  own = model_selection.cross_val_predict(
    model, features, is_easy, cv=folds, method='predict_proba'
  )
  return model.fit(features, is_easy).predict_proba(target_features)[:, 1], own[:, 1]


def _classifier(predictor):
  if predictor == 'logistic':
    return linear_model.LogisticRegression(max_iter=10_000)
  network = neural_network.MLPClassifier(
    (32, 16), alpha=0.1, max_iter=2000, early_stopping=False, random_state=0
  )
  return calibration.CalibratedClassifierCV(network, method='sigmoid', cv=3)
