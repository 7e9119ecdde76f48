"""Metrics of unlearning: functions of output arrays, for comparison with gold and a null floor."""

from dalign_jax.metrics._accuracy import accuracy, per_class_accuracy
from dalign_jax.metrics._aggregate import average_gap, tug_of_war
from dalign_jax.metrics._calibration import (
  PredictionAuc,
  ReliabilityCurve,
  prediction_auc,
  reliability_curve,
)
from dalign_jax.metrics._curves import AttackResult, attack_metrics, roc_curve
from dalign_jax.metrics._distances import (
  activation_distance,
  agreement,
  balanced_agreement,
  js_divergence,
  linear_cka,
  zrf,
)
from dalign_jax.metrics._distributional import (
  ForgettingQuality,
  Klom,
  forgetting_quality,
  forgetting_quality_floor,
  klom,
  klom_floor,
)
from dalign_jax.metrics._features import (
  Alignment,
  AlignmentCurve,
  alignment_curve,
  dimensional_alignment,
  dimensional_alignment_from_moments,
  spectrum,
  subspace_overlap,
)
from dalign_jax.metrics._lira import lira, rmia, u_lira
from dalign_jax.metrics._membership import (
  attack_efficacy,
  match_classes,
  population_attack,
  population_scores,
  svc_attack,
)
from dalign_jax.metrics._memorisation import memorisation_scores
from dalign_jax.metrics._nomus import (
  NullSpread,
  attack_null_spread,
  forgetting_score,
  nomus,
  one_feature_attack,
)
from dalign_jax.metrics._probes import (
  ClusteringScores,
  ProbeResult,
  clustering_scores,
  linear_probe,
)
from dalign_jax.metrics._scores import (
  attack_features,
  confidence,
  cross_entropy_scores,
  entropy,
  logit_scaled_confidence,
  modified_entropy,
)

__all__ = [
  'Alignment',
  'AlignmentCurve',
  'AttackResult',
  'ClusteringScores',
  'ForgettingQuality',
  'Klom',
  'NullSpread',
  'PredictionAuc',
  'ProbeResult',
  'ReliabilityCurve',
  'accuracy',
  'activation_distance',
  'agreement',
  'alignment_curve',
  'attack_efficacy',
  'attack_features',
  'attack_metrics',
  'attack_null_spread',
  'average_gap',
  'balanced_agreement',
  'clustering_scores',
  'confidence',
  'cross_entropy_scores',
  'dimensional_alignment',
  'dimensional_alignment_from_moments',
  'entropy',
  'forgetting_quality',
  'forgetting_quality_floor',
  'forgetting_score',
  'js_divergence',
  'klom',
  'klom_floor',
  'linear_cka',
  'linear_probe',
  'lira',
  'logit_scaled_confidence',
  'match_classes',
  'memorisation_scores',
  'modified_entropy',
  'nomus',
  'one_feature_attack',
  'per_class_accuracy',
  'population_attack',
  'population_scores',
  'prediction_auc',
  'reliability_curve',
  'rmia',
  'roc_curve',
  'spectrum',
  'subspace_overlap',
  'svc_attack',
  'tug_of_war',
  'u_lira',
  'zrf',
]
