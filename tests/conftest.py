"""Settings of the whole suite: CPU, eight forced devices, a compilation cache."""

import gc
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')


def _ask_of_xla(flag):
  """Sets a flag of XLA, where the caller does not say otherwise; read at a process's first use."""
  if flag.split('=')[0] not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'.strip()


_ask_of_xla('--xla_force_host_platform_device_count=8')

import jax
import numpy as np
import pytest
from absl import flags

# Compiling dominates the suite; every worker after the first, and a second run, reads the cache.
CACHE = pathlib.Path(
  os.environ.get('JAX_COMPILATION_CACHE_DIR')
  or pathlib.Path(tempfile.gettempdir()) / 'jaxinpaint-test-cache'
)
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(CACHE)
jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)

# Grain's worker processes read absl flags, which a pytest run has not parsed.
flags.FLAGS.mark_as_parsed()


def pytest_configure(config):
  """Most of the default suite's time is compiling small programs once: half without LLVM's part.

  XLA's own passes stay as they are, but sums round otherwise: 300 times as much over six steps of
  DFNet. The slow tests hold meshes and processes, which compile as users do, to a few roundings of
  one device, so what may select them (`-m 'slow or golden'`, `-m ''`) compiles in full.
  (XLA's older emitters, `xla_cpu_use_fusion_emitters=false`, take a third of the time and are
  wrong: a perceptual loss between equal pictures came out as 7e23.)
  """
  if config.option.markexpr == 'not slow':
    _ask_of_xla('--xla_backend_optimization_level=0')


def pytest_collection_finish():
  """What is imported stays, so it is not searched for garbage again and again during tracing."""
  gc.freeze()
  gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope='session')
def photographs():
  """Three small real photographs, uint8 [96, 128, 3], from scikit-image's wheel."""
  import cv2
  from skimage import data

  images = (data.astronaut(), data.coffee(), data.chelsea())
  return [cv2.resize(image, (128, 96), interpolation=cv2.INTER_AREA) for image in images]


@pytest.fixture(autouse=True)
def traces_are_made_anew(monkeypatch):
  """Tests put other functions in the place of a system's, which a kept trace does not know of."""
  from jaxinpaint.runtime import traces

  monkeypatch.setattr(traces, 'beside', lambda programs: None)


@pytest.fixture(scope='module', autouse=True)
def forget_compiled():
  """Compiled functions are of no use to the next module, and a worker's would fill gigabytes."""
  yield
  jax.clear_caches()


@pytest.fixture(scope='session')
def alex():
  """Weights of LPIPS with AlexNet drawn at random, heads non-negative."""
  from jaxinpaint.features import lpips

  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  shapes = jax.eval_shape(lpips.AlexNet().init, jax.random.key(0), image)['params']
  rng = np.random.default_rng(0)
  draw = lambda s: rng.standard_normal(s.shape, np.float32) / np.sqrt(np.prod(s.shape[:-1]) or 1.0)
  heads = {f'lin{i}': rng.random(c, np.float32) for i, c in enumerate(lpips.CHANNELS['alex'])}
  return {'trunk': jax.tree.map(draw, shapes), 'heads': heads}


@pytest.fixture(scope='session')
def narrow_glcic():
  """(path, image size) -> its generator's parameters; writes a weights file of a narrow GLCIC."""
  import jax.numpy as jnp

  from jaxinpaint import systems
  from jaxinpaint.weights import store

  def write(path, size):
    config = systems.default_config('glcic')
    config.model.update(dict(width=4, discriminator_width=2, discriminator_features=8))
    config.model.update(dict(image_size=size, local_size=32))
    recipe = systems.make_recipe(config)
    batch = {
      'image': jnp.zeros((1, size, size, 3)),
      'mask': jnp.zeros((1, size, size, 1)),
      'id': jnp.zeros(1, jnp.int32),
    }
    shapes = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    # Numbers of any kind: compiling `init` takes longer than all that is measured with them.
    numbers = lambda x: rng.uniform(0.01, 0.1, x.shape).astype(x.dtype)
    variables = jax.tree.map(numbers, shapes)
    pick = lambda tree: {'generator': tree['generator']}
    store.save(path, 'glcic', config, pick(variables.params), pick(variables.stats))
    return variables.params['generator']

  return write


@pytest.fixture(scope='module')
def browser():
  """Chromium, driven by playwright."""
  playwright = pytest.importorskip(
    'playwright.sync_api', reason='no browser here: pip install playwright, and Chromium'
  )
  path = shutil.which('chromium') or shutil.which('google-chrome')
  if path is None:
    pytest.skip('no browser here: Chromium is not installed')
  with playwright.sync_playwright() as driver:
    opened = driver.chromium.launch(executable_path=path, args=['--no-sandbox'])
    yield opened
    opened.close()
