"""Valid values of hyper-parameters: a name means the same in every method.

A hyper-parameter that is not named here is a switch, or a choice that its factory checks.
"""

from dalign_jax import valid

_ABOVE_ZERO = valid.Between(0, 10**6, open_low=True)

VALID: dict[str, valid.Valid] = {
  **dict.fromkeys(
    (
      *('learning_rate', 'forget_learning_rate', 'recover_learning_rate'),
      *('impair_learning_rate', 'repair_learning_rate', 'step_size', 'noise_step_size'),
      'twin_learning_rate',
    ),
    valid.RATE,
  ),
  **dict.fromkeys(
    (
      *('num_epochs', 'forget_epochs', 'recover_epochs', 'impair_epochs', 'repair_epochs'),
      *('rounds', 'num_steps', 'forget_steps', 'noise_steps', 'num_iterations', 'encoder_epochs'),
      *('twin_epochs', 'curriculum_epochs'),
    ),
    valid.COUNT_OR_ZERO,
  ),
  **dict.fromkeys(
    (
      *('batch_size', 'num_copies', 'num_layers', 'num_noises', 'monitor_every', 'monitor_size'),
      *('sinkhorn_iterations', 'num_doublings', 'num_models', 'forget_every', 'noisy_steps'),
    ),
    valid.COUNT,
  ),
  **dict.fromkeys(
    (
      *('ce_weight', 'cross_entropy_weight', 'da_weight', 'distance_weight', 'easy_weight'),
      *('distillation_weight', 'fisher_weight', 'forget_weight', 'hard_weight', 'l1_weight'),
      *('ot_weight', 'regularization', 'selection_weight', 'dampening', 'margin', 'noise'),
      *('save_threshold', 'stop_threshold', 'scale', 'retain_scale', 'forget_scale'),
      *('ascent_weight', 'smoothing'),
    ),
    valid.WEIGHT,
  ),
  **dict.fromkeys(
    (
      *('damping', 'epsilon', 'max_norm', 'max_variance', 'privacy_epsilon', 'radius'),
      'temperature',
    ),
    _ABOVE_ZERO,
  ),
  **dict.fromkeys(
    ('control_share', 'energy', 'reset_share', 'retain_fraction', 'saliency'), valid.SHARE_OR_ALL
  ),
  **dict.fromkeys(('forget_share', 'privacy_delta', 'threshold'), valid.SHARE),
  **dict.fromkeys(
    ('kept_rate', 'loss_exponent', 'retain_weight', 'stop_accuracy'), valid.Between(0, 1)
  ),
  'momentum': valid.Between(0, 1, open_high=True),
  'weight_decay': valid.Between(0, 10),
}
