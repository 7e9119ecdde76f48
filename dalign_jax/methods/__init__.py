"""Unlearning methods behind one interface: `METHODS[name].make(**hyper_parameters)(problem, key)`.

To add a method, write one file with a factory of keyword-only hyper-parameters and add one line to
the table; the contract test then covers it.
"""

from collections.abc import Callable
from typing import NamedTuple

from dalign_jax import types
from dalign_jax.methods._dlfd import dlfd
from dalign_jax.methods._finetune import finetune
from dalign_jax.methods._gradient_ascent import gradient_ascent
from dalign_jax.methods._head_only import head_only
from dalign_jax.methods._muda import muda
from dalign_jax.methods._random_label import random_label
from dalign_jax.methods._retrain import retrain


class Method(NamedTuple):
  """A method's factory, what a table says of it, and to which labels it applies."""

  make: Callable[..., types.UnlearnFn]
  sees: str
  class_only: bool = False
  multi_label: bool = True


METHODS: dict[str, Method] = {
  'dlfd': Method(dlfd, sees='all retain, forget'),
  'finetune': Method(finetune, sees='all retain'),
  'gradient_ascent': Method(gradient_ascent, sees='forget'),
  'head_only': Method(head_only, sees='forget', class_only=True, multi_label=False),
  'muda': Method(muda, sees='forget, part of retain', multi_label=False),
  'random_label': Method(random_label, sees='all retain, forget', multi_label=False),
  'retrain': Method(retrain, sees='all retain'),
}

__all__ = [
  'METHODS',
  'Method',
  'dlfd',
  'finetune',
  'gradient_ascent',
  'head_only',
  'muda',
  'random_label',
  'retrain',
]
