"""Downloads and prepares a tfds set in the form that training reads (array_record).

  python -m jaxinpaint.data.prepare places365_small [--data_dir DIR] [--manual_dir DIR]

Sets whose files must be fetched by hand are named in docs/data.md; the command says what is
missing. Some sets need TensorFlow for this step only: pip install 'jaxinpaint[tf]'.
"""

import argparse
import sys
from collections.abc import Sequence

from jaxinpaint.data import sources


def prepare(name: str, data_dir: str = '', manual_dir: str = '') -> str:
  """Prepares the set, unless it is prepared already.

  Returns:
    The folder that holds it.

  Raises:
    ValueError: unknown name, or it is there in a form that cannot be read by index.
    FileNotFoundError: files that have to be fetched by hand are not there.
    RuntimeError: the set's builder needs a package that is not installed (TensorFlow).
    OSError: the download failed; another call continues it.
  """
  import tensorflow_datasets as tfds

  builder = sources.tfds_builder(name, data_dir, file_format='array_record')
  manual = manual_dir or str(sources.manual_dir(data_dir))
  config = tfds.download.DownloadConfig(manual_dir=manual)
  try:
    builder.download_and_prepare(download_config=config)
  except AssertionError as error:  # tfds's own check for files fetched by hand
    if not type(builder).MANUAL_DOWNLOAD_INSTRUCTIONS:
      raise
    raise FileNotFoundError(sources.not_prepared(builder, name, data_dir)) from error
  except ImportError as error:
    missing = 'jaxinpaint[tf]' if 'tensorflow' in str(error) else error.name or str(error)
    raise RuntimeError(
      f"preparing {name} needs a package that reading it does not: pip install '{missing}', then "
      'run the command again'
    ) from error
  return str(builder.data_path)


def main(argv: Sequence[str] | None = None) -> int:
  """The command."""
  parser = argparse.ArgumentParser(prog='python -m jaxinpaint.data.prepare', description=__doc__)
  parser.add_argument('name', help='name, or name/config, as in places365_small or celeb_a_hq/256')
  parser.add_argument('--data_dir', default='', help='default: ~/tensorflow_datasets')
  parser.add_argument(
    '--manual_dir', default='', help='files fetched by hand; default: DATA_DIR/downloads/manual'
  )
  args = parser.parse_args(argv)
  try:
    print(prepare(args.name, args.data_dir, args.manual_dir))
  except (ValueError, OSError, RuntimeError) as error:  # downloads fail with an OSError
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
