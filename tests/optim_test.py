"""`alternating`: phases keep to themselves, on every route, and through a checkpoint."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from dalign_jax import optim

PARAMS = {'w': jnp.arange(3.0), 'b': jnp.ones(())}
PHASES = (0, 0, 1, 1, 1, 0, 1)


def _transform(**options):
  schedule = optax.linear_schedule(1.0, 0.0, 10)
  return optim.alternating(
    forget=optax.sgd(schedule, momentum=0.9), recover=optax.adam(0.1), **options
  )


def _gradient(i):
  return jax.tree.map(lambda p: jnp.cos(p + i), PARAMS)


def _run(tx, phases=PHASES):
  params, state = PARAMS, tx.init(PARAMS)
  update = jax.jit(tx.update)
  for i, phase in enumerate(phases):
    updates, state = update(_gradient(i), state, params, phase=phase)
    params = optax.apply_updates(params, updates)
  return params, state


def _run_by_hand(reset):
  """Two ordinary optimizers used in turn."""
  txs = (optax.sgd(optax.linear_schedule(1.0, 0.0, 10), momentum=0.9), optax.adam(0.1))
  params, states, previous = PARAMS, [tx.init(PARAMS) for tx in txs], None
  for i, phase in enumerate(PHASES):
    if reset and previous not in (None, phase):
      states[phase] = txs[phase].init(params)
    updates, states[phase] = txs[phase].update(_gradient(i), states[phase], params)
    params, previous = optax.apply_updates(params, updates), phase
  return params, states


@pytest.mark.parametrize('reset', [True, False])
def test_equals_two_optimizers_used_in_turn(reset):
  params, state = _run(_transform(reset_on_switch=reset))
  expected, states = _run_by_hand(reset)
  chex.assert_trees_all_close(params, expected, rtol=1e-5)
  chex.assert_trees_all_close(list(state.inner.values()), states, rtol=1e-5)


def test_schedule_advances_only_in_its_phase():
  _, state = _run(_transform(reset_on_switch=False))
  counts = {name: optax.tree.get_all_with_path(s, 'count') for name, s in state.inner.items()}
  assert {name: {int(c) for _, c in found} for name, found in counts.items()} == {
    'forget': {PHASES.count(0)},
    'recover': {PHASES.count(1)},
  }


def test_scan_equals_loop():
  tx = _transform()
  gradients = jax.tree.map(lambda *g: jnp.stack(g), *[_gradient(i) for i in range(len(PHASES))])

  def body(carry, inputs):
    params, state = carry
    gradient, phase = inputs
    updates, state = tx.update(gradient, state, params, phase=phase)
    return (optax.apply_updates(params, updates), state), None

  scanned = jax.jit(lambda c, xs: jax.lax.scan(body, c, xs)[0])(
    (PARAMS, tx.init(PARAMS)), (gradients, jnp.array(PHASES))
  )
  chex.assert_trees_all_close(scanned, _run(tx), rtol=1e-5)


def test_pmap_equals_loop():
  tx = _transform()
  update = jax.pmap(
    lambda g, s, p, phase: tx.update(jax.lax.pmean(g, 'i'), s, p, phase=phase),
    axis_name='i',
    in_axes=(0, 0, 0, None),
  )
  stack = lambda tree: jax.tree.map(lambda x: jnp.stack([x] * 4), tree)
  params, state = stack(PARAMS), stack(tx.init(PARAMS))
  for i, phase in enumerate(PHASES):
    updates, state = update(stack(_gradient(i)), state, params, phase)
    params = jax.block_until_ready(optax.apply_updates(params, updates))
  first = jax.tree.map(lambda x: np.asarray(x)[3], (params, state))
  chex.assert_trees_all_close(first, _run(tx), rtol=1e-5)


def test_state_survives_orbax(tmp_path):
  tx = _transform()
  _, state = _run(tx)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'state', state)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(tmp_path / 'state', jax.eval_shape(lambda: state))
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  chex.assert_trees_all_equal(restored, state)


def test_other_phases_are_left_alone():
  tx = _transform()
  params, state = _run(tx, phases=(0, 0))
  _, after = tx.update(_gradient(0), state, params, phase=1)
  chex.assert_trees_all_equal(after.inner['forget'], state.inner['forget'])


def test_no_phases_is_an_error():
  with pytest.raises(ValueError, match='at least one phase'):
    optim.alternating()


def test_restricted_keeps_the_others_to_the_bit_and_moves_the_rest_as_ever():
  mask = {'w': np.array([True, False, True]), 'b': np.array(False)}
  inner = optim.sgd(0.1, momentum=0.9, weight_decay=0.5)
  free, _ = _run(_ignoring_phase(inner))
  held, state = _run(_ignoring_phase(optim.restricted(inner, mask)))
  assert held['w'][1] == PARAMS['w'][1] and held['b'] == PARAMS['b']
  assert held['w'][0] != PARAMS['w'][0] and free['w'][1] != PARAMS['w'][1]
  chex.assert_trees_all_equal(state.mask, jax.tree.map(jnp.asarray, mask))


def test_restricted_to_everything_is_the_transformation_itself():
  mask = jax.tree.map(lambda p: np.ones(p.shape, bool), PARAMS)
  inner = optax.adam(0.1)
  results = [_run(_ignoring_phase(tx))[0] for tx in (inner, optim.restricted(inner, mask))]
  chex.assert_trees_all_equal(*results)


def _ignoring_phase(tx):
  update = lambda grads, state, params, phase: tx.update(grads, state, params)
  return optax.GradientTransformationExtraArgs(tx.init, update)
