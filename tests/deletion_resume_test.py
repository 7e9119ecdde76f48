"""A stopped request goes on as it was asked, and not under other settings."""

import functools

import pytest

from dalign_jax.deletion import carry_out
from tests import deletion_place


@pytest.mark.parametrize(
  'changes', [{'num_epochs': 3}, {'learning_rate': 0.02}, {'compute_dtype': 'bfloat16'}]
)
def test_a_stopped_request_does_not_go_on_under_another_recipe(
  changes, tmp_path, monkeypatch, capsys
):
  """What was trained under the first recipe is not what the second one's record would say."""
  deletion_place.write(tmp_path)
  recipe = deletion_place.keep(deletion_place.SETTINGS, num_epochs=2)
  retrain = functools.partial(deletion_place.forget, tmp_path, method='retrain', hparam=())
  with monkeypatch.context() as patch:
    patch.setattr(carry_out.evaluation, 'compare', lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      retrain(settings=recipe)
  record = retrain(settings=deletion_place.keep(recipe, **changes))
  assert 'done before' not in capsys.readouterr().out
  said = record['configuration']['settings']
  assert {name: said[name] for name in changes} == changes
  deletion_place.verify(tmp_path / 'first')
