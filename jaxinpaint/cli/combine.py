"""Joins reports that were measured apart into one comparison.

  jaxinpaint combine runs/a/evaluation/1000 runs/b/evaluation/1000 \\
    --output runs/evaluation/a_and_b --baseline misf

Exit codes: 0; 1 with a sentence; 2 wrong flags.
"""

from collections.abc import Sequence

from jaxinpaint.cli import command_line


def _parser() -> command_line.Parser:
  parser = command_line.Parser(
    'jaxinpaint combine', __doc__, 'REPORT_DIR REPORT_DIR ... --output DIR [flags]'
  )
  add, path = parser.add_argument, command_line.path
  add('reports', nargs='+', type=path, metavar='REPORT_DIR', help='folders of `evaluate`.')
  add('--output', required=True, type=path, metavar='DIR', help='an earlier report is kept.')
  add('--baseline', metavar='ROW', help='the row that all others are compared with.')
  parser.switch('any_dataset_name', help='the data sets are one, under several names.')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit code."""
  parser = _parser()
  given = parser.parse_args(argv)
  from jaxinpaint.evaluation.combine import combine
  from jaxinpaint.report import files, tables

  try:
    files.check_folder(given.output)
    joined = combine(
      given.reports, baseline=given.baseline, any_dataset_name=given.any_dataset_name
    )
    folder = files.write(
      joined.results, given.output, joined.published, measured_on=joined.environment
    )
  except (files.ReportError, OSError) as error:
    command_line.say(parser.prog, error)
    return 1
  print(tables.terminal_table(joined.results, joined.published))
  print(f'report: {folder / "report.html"}')
  return 0
