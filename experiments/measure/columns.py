"""The columns of the tables: what each says, and how it is shown."""

from typing import NamedTuple


class Column(NamedTuple):
  """A column: its key in `evaluation.json`, head, scale, and what it says."""

  key: str
  head: str
  scale: float
  digits: int
  meaning: str
  is_distance: bool = False  # already a distance to gold
  part: str = 'main'  # the table it stands in: main or full


COLUMNS = (
  Column('forget_accuracy', 'forget', 100, 1, 'Accuracy on the forget set, %.'),
  Column(
    'forget_gap',
    'forget gap',
    100,
    1,
    "Distance of that accuracy from gold's, points: the aim is gold's accuracy, not 0.",
    True,
  ),
  Column('retain_accuracy', 'retain', 100, 1, 'Accuracy on the retain set, %.'),
  Column(
    'test_accuracy',
    'test',
    100,
    1,
    'Accuracy on test images of the retained classes (and subclasses), %.',
  ),
  Column(
    'test_forget_accuracy',
    'test forgotten',
    100,
    1,
    'Accuracy on test images of forgotten classes or of the forgotten subclass, %.',
  ),
  Column(
    'poisoned_accuracy',
    'ASR',
    100,
    1,
    'Attack success rate: share of poisoned test images (other classes with the trigger, or with '
    'wrong labels) that get the wrong label, %.',
  ),
  Column(
    'mia',
    'attack',
    1,
    3,
    'One-feature membership attack on the loss: mean accuracy of telling forget from test images '
    "(unseen people's or poisoned ones where there are any) of the same classes. 0.5 is chance; "
    'its null floor at these sizes is given below.',
  ),
  Column(
    'forgetting_score',
    'FS',
    1,
    3,
    "Forgetting score of the face benchmarks: |M - 0.5|, M the attack's accuracy on all of forget "
    'against all of the unseen people, cut to equal size; its null floor is given below.',
  ),
  Column(
    'nomus',
    'NoMUS',
    1,
    3,
    'Half the test accuracy plus half of 1 - 2 FS. Not calibrated on gold: an untouched or a '
    'constant network can beat it.',
  ),
  Column(
    'dimensional_alignment',
    'DA',
    1,
    3,
    "Share of the forget features inside the retain features' principal eigenspace.",
  ),
  Column('linear_probe', 'LP', 100, 1, 'Linear probe: a fresh head on frozen features, test %.'),
  Column('linear_probe_forget', 'LP forgotten', 100, 1, 'The same on forgotten classes, test %.'),
  Column('nmi', 'NMI', 1, 3, 'k-means clusters of test features against labels.'),
  Column('f1', 'F1', 1, 3, 'Pairwise F1 of the same clusters.'),
  Column(
    'activation_distance',
    'AD',
    1,
    3,
    "Activation distance: mean L2 distance between the softmax outputs and gold's on forget.",
    True,
  ),
  Column(
    'balanced_agreement',
    'aligned',
    100,
    1,
    'On forget, right where gold is right and wrong where gold is wrong: mean of the two shares, '
    '%. 50 says nothing, 100 is gold; a second gold shows what can be reached.',
  ),
  Column('js_divergence', 'JS', 1, 3, "Jensen-Shannon divergence to gold's outputs, nats.", True),
  Column(
    'klom_forget',
    'KLOM F',
    1,
    2,
    "KL divergence of a forget example's margins over the seeds from those over golds: mean, nats.",
    True,
    'full',
  ),
  Column('klom_forget_p95', 'KLOM F 95', 1, 2, 'Its 95th percentile over examples.', True, 'full'),
  Column('klom_retain', 'KLOM R', 1, 2, 'KLOM on retain examples.', True, 'full'),
  Column('klom_validation', 'KLOM V', 1, 2, 'KLOM on validation examples.', True, 'full'),
  Column(
    'forgetting_quality',
    'FQ',
    1,
    3,
    'Forgetting quality: 1 when no threshold tells the seeds from golds; never near 1 in practice.',
    part='full',
  ),
  Column(
    'u_lira_auc',
    'U-LiRA',
    1,
    3,
    'AUC of the likelihood-ratio attack: unlearned, or never trained on? Mean over the shadows.',
    part='full',
  ),
  Column(
    'u_lira_tpr_at_1_percent',
    'U-LiRA @1%',
    100,
    1,
    'Its true-positive rate at 1 % false positives, %, over all shadows together.',
    part='full',
  ),
  Column(
    'rmia_auc',
    'RMIA',
    1,
    3,
    'AUC of the robust membership attack (offline, golds as references): forget or test images?',
    part='full',
  ),
  Column(
    'rmia_tpr_at_1_percent', 'RMIA @1%', 100, 1, 'Its true-positive rate at 1 %, %.', part='full'
  ),
  Column(
    'population_auc',
    'population',
    1,
    3,
    'AUC of a regression on loss, confidence, entropy and modified entropy: forget or test images?',
    part='full',
  ),
  Column(
    'population_tpr_at_1_percent',
    'population @1%',
    100,
    1,
    'Its true-positive rate at 1 %, %.',
    part='full',
  ),
  Column(
    'relearn_epochs',
    'relearn',
    1,
    0,
    "Epochs of fine-tuning on forget until its loss is the original's: fewer than gold's means "
    'that knowledge was only hidden. First seed; one more than the most tried where never.',
    part='full',
  ),
)
