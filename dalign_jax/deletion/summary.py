"""The plain-language summary of an audit record."""

from dalign_jax.deletion import verdict

# on held-out samples of the classes of what was forgotten: the first that is defined
SAME_CLASSES = ('test_forget_accuracy', 'test_accuracy_same', 'test_accuracy')


def count(found: dict) -> int:
  """Number of forgotten samples: of a record of format 2, or of one of format 1 with its ids."""
  request = found['request']
  return request['count'] if 'count' in request else len(request['ids'])


def sentences(found: dict) -> list[str]:
  """Sentences about a request: the method, the measurements, and their limits.

  Args:
    found: the record's request, samples, method, metrics and verdict.
  """
  kept, method = found['samples']['train'], found['method']
  lines = [
    *verdict.words(found),
    f'{count(found)} of {kept["count_before"]:,} training samples were to be forgotten; '
    f'{kept["count_after"]:,} remain.',
    f'The method {method["name"]} {_did(found)} the model that was trained on all of them. It saw: '
    f'{method["sees"]}.',
    *_restriction(found),
    *_measured(found['metrics']),
    *_beside_gold(found['metrics']),
    *_copies(found),
    *_limits(found),
  ]
  return lines


def _exact(found) -> bool:
  return found['method']['name'] == 'retrain'


def _did(found) -> str:
  if _exact(found):
    return 'took the place of'
  return 'changed' if verdict.is_changed(found) else 'changed no parameter of'


def _restriction(found) -> list[str]:
  settings = found.get('configuration', {}).get('settings', {})
  patterns, rank = settings.get('trainable') or [], settings.get('lora_rank') or 0
  lines = []
  if patterns:
    lines.append(f'It could change only the parameters that match {" or ".join(patterns)}.')
  if rank:
    lines.append(f'It could change kernels only, by adapters of rank {rank}.')
  steps = settings.get('method_optimizer', 'sgd'), settings.get('method_schedule', 'constant')
  if steps != ('sgd', 'constant'):
    lines.append(f'Its steps were those of {steps[0]} with a {steps[1]} learning rate.')
  return lines


def _measured(metrics) -> list[str]:
  before, after = metrics['original'], metrics['unlearned']
  percent = lambda of_model, key: f'{100 * of_model[key]:.1f} %'
  change = lambda key: f'{percent(before, key)} before, {percent(after, key)} after'
  lines = [f'Accuracy on the forgotten samples: {change("forget_accuracy")}.']
  same = next((key for key in SAME_CLASSES if key in after), None)
  if same:
    lines[-1] += f' On held-out samples of the same classes: {percent(after, same)}.'
  lines.append(
    f'The outputs on the forgotten samples moved by {after["moved"]:.3f} on average (activation '
    'distance: 0 is not at all, 1.414 the most).'
  )
  lines.append(f'On the samples kept: {change("retain_accuracy")}.')
  if 'test_accuracy' in after:
    lines.append(f'On held-out samples: {change("test_accuracy")}.')
  if 'attack' in after:
    lines.append(
      'An attack by the loss alone told forgotten from held-out samples of the same classes with '
      f'an accuracy of {before["attack"]:.3f} before and {after["attack"]:.3f} after. Chance is '
      f'0.5; with so few samples it is missed by up to {after["attack_floor"]:.3f} where there is '
      'nothing to tell.'
    )
  else:
    lines.append('There were too few samples for a membership attack.')
  return lines


def _beside_gold(metrics) -> list[str]:
  if 'gold' not in metrics:
    return ['No retrained model was at hand to compare with (--compare_gold=2 makes two).']
  distance = lambda model: f'{metrics[model]["activation_distance"]:.3f}'
  line = (
    'From a model retrained without the forgotten samples, the outputs on them are '
    f'{distance("original")} away before and {distance("unlearned")} after (activation distance)'
  )
  if 'second gold' in metrics:
    line += f'; two retrained models are {distance("second gold")} apart'
  return [f'{line}.']


def _copies(found) -> list[str]:
  """What was looked for and found of copies; nothing in records of version 0.1.0."""
  said = found.get('copies')
  if said is None:
    return []
  looked = 'equal pixels and near copies' if said['near'] else 'equal pixels, not for near copies'
  lines = [f'The remaining training samples were searched for {looked}.']
  if said['included']:
    lines.append(f'Copies forgotten too, which nobody had named: {len(said["included"])}.')
  if said['kept']:
    lines.append(f'Copies of forgotten samples kept on request: {len(said["kept"])}.')
  return lines


def _pretrained(found) -> list[str]:
  if not found.get('configuration', {}).get('settings', {}).get('pretrained'):
    return []
  return [
    'The model was fine-tuned from pretrained weights. If the samples were among the data of the '
    'pretraining, what was learned of them there is still in the model: nothing here looks for it, '
    'and retraining starts from the same weights.'
  ]


def _limits(found) -> list[str]:
  kept = (found.get('copies') or {}).get('kept')
  if _exact(found) and kept:
    first = (
      f'The model was trained anew on what remains, copies of forgotten samples ({len(kept)}) '
      'included: what it learned from the copies, it learned of the samples.'
    )
  elif _exact(found):
    first = (
      'The model was trained anew on what remains: it owes nothing to the forgotten samples, as '
      'far as this code does what it says.'
    )
  elif 'guarantee' in found:
    guarantee = found['guarantee']
    first = (
      f'Guarantee: {guarantee["definition"]}. It covers {guarantee["covers"]}. It does not cover '
      f'{guarantee["does_not_cover"]}.'
    )
  else:
    first = (
      'This is approximate unlearning: no proof that nothing of the samples is left in the model. '
      'What was measured is said above; stronger attacks were not tried.'
    )
  return [
    first,
    *_pretrained(found),
    'The samples themselves, copies of them, and every earlier checkpoint still hold what was to '
    'be forgotten, until they are deleted as well.',
    'This record names the ids of the forgotten samples and holds nothing else of them.'
    if 'ids' in found['request']
    else 'This record names no sample. It holds keyed commitments, which are noise once the key '
    'that lies elsewhere is destroyed.',
  ]
