"""The figure of the recovery curves."""

from collections.abc import Sequence

from experiments.measure import recovery_procedures
from experiments.measure import rows as rows_lib
from experiments.report import plot_style


def recovery(rows: rows_lib.Results, procedures: Sequence[recovery_procedures.Procedure]) -> str:
  """Forget accuracy against the budget of each recovery procedure; lines are means over seeds."""
  shown = [p for p in procedures if any(f'recovery_{p.key}' in row.arrays for row in rows)]
  fig, panels = plot_style.panels([p.head for p in shown], height=2.3)
  for (ax, _), procedure in zip(panels, shown, strict=True):
    for i, row in enumerate(rows):
      if f'recovery_{procedure.key}' in row.arrays:
        rates = 100 * row.arrays[f'recovery_{procedure.key}'].mean(axis=0)
        budgets = row.arrays[f'recovery_{procedure.key}_budgets']
        budgets = 255 * budgets if procedure.budget.endswith('1/255') else budgets
        ax.plot(budgets, rates, marker='.', markersize=3, **plot_style.style(row, i))
    ax.tick_params(labelsize=6)
    ax.set(ylim=(-3, 103))
    ax.set_xlabel(procedure.budget, fontsize=7)
    ax.set_ylabel('forget accuracy (%)', fontsize=7)
    if procedure.budget == 'bits':
      ax.invert_xaxis()
  plot_style.legend(panels[0][0], beside=True)
  return plot_style.svg(fig)
