"""Metrics of unlearning: functions of output arrays, for comparison with gold and a null floor."""

from dalign_jax.metrics._accuracy import accuracy, per_class_accuracy
from dalign_jax.metrics._aggregate import average_gap, tug_of_war
from dalign_jax.metrics._attack_epsilon import AttackEpsilon, attack_epsilon
from dalign_jax.metrics._calibration import (
  PredictionAuc,
  ReliabilityCurve,
  prediction_auc,
  reliability_curve,
)
from dalign_jax.metrics._completeness import completeness_scores
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
from dalign_jax.metrics._error_rates import (
  clopper_pearson,
  column_false_alarms,
  epsilon_lower_bound,
  one_run_epsilon,
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
from dalign_jax.metrics._gold_band import held_out_alarms, held_out_choices, outside_golds
from dalign_jax.metrics._groups import (
  GroupValues,
  by_group,
  group_accuracy,
  group_attack,
  group_gaps,
)
from dalign_jax.metrics._lira import lira, needs_pooled_variance, rmia, tune_offline_a, u_lira
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
  probe_correct,
)
from dalign_jax.metrics._recovery import (
  class_means,
  nearest_prototype,
  recovery_area,
  recovery_gap,
)
from dalign_jax.metrics._sample_tests import SampleTest, holm, nearer_to_gold, unlike_gold
from dalign_jax.metrics._scores import (
  attack_features,
  confidence,
  cross_entropy_scores,
  entropy,
  logit_scaled_confidence,
  modified_entropy,
)
from dalign_jax.metrics._strata import STRATA, entanglement_distances, strata
from dalign_jax.metrics._two_models import update_features, update_floor, update_leakage
from dalign_jax.metrics._without_gold import (
  mixture_share,
  rank_correlation,
  rf_jsd,
  short_training_gap,
)

__all__ = [
  'STRATA',
  'Alignment',
  'AlignmentCurve',
  'AttackEpsilon',
  'AttackResult',
  'ClusteringScores',
  'ForgettingQuality',
  'GroupValues',
  'Klom',
  'NullSpread',
  'PredictionAuc',
  'ProbeResult',
  'ReliabilityCurve',
  'SampleTest',
  'accuracy',
  'activation_distance',
  'agreement',
  'alignment_curve',
  'attack_efficacy',
  'attack_epsilon',
  'attack_features',
  'attack_metrics',
  'attack_null_spread',
  'average_gap',
  'balanced_agreement',
  'by_group',
  'class_means',
  'clopper_pearson',
  'clustering_scores',
  'column_false_alarms',
  'completeness_scores',
  'confidence',
  'cross_entropy_scores',
  'dimensional_alignment',
  'dimensional_alignment_from_moments',
  'entanglement_distances',
  'entropy',
  'epsilon_lower_bound',
  'forgetting_quality',
  'forgetting_quality_floor',
  'forgetting_score',
  'group_accuracy',
  'group_attack',
  'group_gaps',
  'held_out_alarms',
  'held_out_choices',
  'holm',
  'js_divergence',
  'klom',
  'klom_floor',
  'linear_cka',
  'linear_probe',
  'lira',
  'logit_scaled_confidence',
  'match_classes',
  'memorisation_scores',
  'mixture_share',
  'modified_entropy',
  'nearer_to_gold',
  'nearest_prototype',
  'needs_pooled_variance',
  'nomus',
  'one_feature_attack',
  'one_run_epsilon',
  'outside_golds',
  'per_class_accuracy',
  'population_attack',
  'population_scores',
  'prediction_auc',
  'probe_correct',
  'rank_correlation',
  'recovery_area',
  'recovery_gap',
  'reliability_curve',
  'rf_jsd',
  'rmia',
  'roc_curve',
  'short_training_gap',
  'spectrum',
  'strata',
  'subspace_overlap',
  'svc_attack',
  'tug_of_war',
  'tune_offline_a',
  'u_lira',
  'unlike_gold',
  'update_features',
  'update_floor',
  'update_leakage',
  'zrf',
]
