"""Unlearning stratum by stratum: each part of the forget set by the method that suits it."""

from collections.abc import Sequence
import dataclasses

import jax
import numpy as np

from dalign_jax import errors, types


def by_strata(scores: np.ndarray, unlearn_fns: Sequence[types.UnlearnFn | None]) -> types.UnlearnFn:
  r"""A method that forgets the strata of a score one after the other, from the lowest on.

  .. math:: \theta_0 = \theta_o, \quad \theta_k = U_k(\theta_{k-1}; S_k, retain), \quad k = 1 ... K

  S_1 to S_K are equal parts of the forget set in the order of the score: its memorisation, say
  (`metrics.memorisation`), or a cheap stand-in, such as one minus the original's confidence. In
  RUM, what is little memorised is left as it is, and what is much memorised goes through stronger
  methods.

  Args:
    scores: `[N]`, of the forget examples in their order.
    unlearn_fns: K methods, from the lowest stratum to the highest; None leaves its stratum alone.

  Returns:
    The unlearning function. All see the same retain set; the examples of other strata are in no
    set.

  Raises:
    errors.InputError: for no method; when run, if the scores are not as many as the forget
      examples, or fewer than the methods.

  Example:
    >>> from dalign_jax import methods
    >>> confidence = np.array([0.9, 0.2, 0.5])
    >>> rum = by_strata(1 - confidence, [None, methods.finetune(), methods.salun()])

  References:
    Zhao, Kurmanji, Barbulescu, Triantafillou, Triantafillou: What Makes Unlearning Hard and What to
    Do about It. https://arxiv.org/abs/2406.01257

  Deviation: strata of equal size; the retain set stays the same throughout.
  """
  if not unlearn_fns:
    raise errors.InputError('unlearn_fns must hold one method or more', argument='unlearn_fns')

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    if np.shape(scores) != (len(problem.forget),):
      raise errors.InputError(
        f'scores must have shape [{len(problem.forget)}] like the forget set, '
        f'got {list(np.shape(scores))}',
        argument='scores',
      )
    if len(scores) < len(unlearn_fns):
      raise errors.InputError(
        f'scores must be as many as the {len(unlearn_fns)} methods or more, got {len(scores)}',
        argument='scores',
      )
    model = problem.original
    strata = np.array_split(np.argsort(scores, kind='stable'), len(unlearn_fns))
    for number, (rows, unlearn_fn) in enumerate(zip(strata, unlearn_fns, strict=True)):
      if unlearn_fn is not None:
        part = dataclasses.replace(
          problem,
          original=model,
          forget=problem.forget.take(np.sort(rows)),
          gold_logits=None,
          subset_outputs=None,
          monitor=types.StepsOnly(problem.monitor),
        )
        model = unlearn_fn(part, jax.random.fold_in(key, number))
    return model

  return unlearn
