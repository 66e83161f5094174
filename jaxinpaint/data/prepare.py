"""Prepares a tfds set in the form that training reads; the command is `cli.prepare`."""

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


if __name__ == '__main__':
  import sys

  from jaxinpaint.cli import prepare as command

  sys.exit(command.main())
