"""The survey's comparison of eleven methods: its data, holes, tables and findings.

  jaxinpaint study --config survey_study \
      --row edgeconnect@celeba=runs/ec_celeba --row edgeconnect@places2=runs/ec_places2 \
      --row glcic@places2=runs/places2_glcic_tf --row mine=my.safetensors \
      --celeba folder:img_align_celeba --places2 folder:places2_val --output runs/survey --resources

"survey": Deep image inpainting by network architecture in five classes, tables 2 to 15 (protocol
'survey'). Stated: 1,000 test images of each set drawn at random, CelebA's from all 202,599 (the
rest trains), Places2's from its validation images (its 328,500 test images train), the same for
every experiment. O: drawn here by numpy's generator of `draw_seed` over the sorted file names, as
the survey's own lists are not published; both lists are written beside the report.
Result here: not measured on these sets.
"""

from ml_collections import ConfigDict


def get_config():
  config = ConfigDict()
  config.protocol = 'survey'
  config.count = 1000  # images of each set
  config.size = 256  # O: side; the survey states none
  config.seed = 0  # O: of the masks
  config.draw_seed = 0  # O: of the test images
  config.batch_size = 8
  config.fills = ('mean', 'telea', 'ns')  # O: rows beside the methods; ('none',): none
  # training: 'rest': what is not drawn; 'other': another part of the set
  config.datasets = dict(
    celeba=dict(label='CelebA', training='rest'),
    places2=dict(label='Places2', training='other'),
  )
  # The system of a row -> the survey's name of the method that stands beside it.
  config.methods = dict(
    context_encoder='CE',
    gmcnn='GMCNN',
    shiftnet='Shift-Net',
    dfnet='DFNet',
    pennet='PEN-Net',
    pix2pix='PIX2PIX',
    pluralistic='Pluralistic',
    edgeconnect='EdgeConnect',
    glcic='GL',
    csa='CSA',
    deepfillv2='GConv',
  )
  # The survey's GL is the TensorFlow code; weights of the other variant are a row of their own.
  config.method_models = dict(glcic=dict(variant='tf'))
  # Of each set the config with the published networks, whose cost --full_size measures.
  hq = ('gmcnn', 'pluralistic', 'deepfillv2')  # their papers' faces are CelebA-HQ's
  stem = {m: m for m in config.methods} | dict(glcic='glcic_tf')
  config.full_size = dict(
    celeba={m: f'celeba{"hq" if m in hq else ""}_{name}' for m, name in stem.items()},
    places2={m: f'places2_{name}' for m, name in stem.items()},
  )
  # O: systems that are measured at the side they were trained at, and say so (CE 128, GL's 160).
  config.own_size = ('context_encoder', 'glcic')
  # O: columns; the survey's words describe SSIM of one window, its numbers do not say.
  config.metrics = ('psnr', 'ssim', 'ssim_global')
  classes = (
    ('Context-Encoder', ('CE', 'GMCNN'), 2, None, 3),  # its code of CE trains on centre holes only
    ('U-Net', ('Shift-Net', 'DFNet', 'PEN-Net'), 4, 5, 6),
    ('CGAN', ('PIX2PIX', 'Pluralistic'), 7, 8, 9),
    ('DCGAN', ('EdgeConnect', 'GL'), 10, 11, 12),
    ('StackGAN', ('CSA', 'GConv'), 13, 14, 15),
  )
  tables = []
  for name, methods, center, random, resources in classes:
    tables.append(dict(number=center, kind='quality', group=name, methods=methods, holes='center'))
    if random:
      tables.append(
        dict(number=random, kind='quality', group=name, methods=methods, holes='random')
      )
    tables.append(dict(number=resources, kind='resources', group=name, methods=methods, holes=''))
  config.tables = tuple(tables)
  config.findings = _findings(dict((c[0], c[1]) for c in classes))
  return config


def _findings(classes):
  """What the survey concludes, as data: counted in its tables, and again in what is measured."""
  both, holes = ('celeba', 'places2'), ('center', 'random')
  every = tuple(m for methods in classes.values() for m in methods)
  # The survey has no random holes for the Context-Encoder class.
  random = tuple(m for m in every if m not in classes['Context-Encoder'])
  most = lambda title, methods, datasets, holes: dict(
    kind='most', title=title, methods=methods, datasets=datasets, holes=holes
  )
  least = lambda title, resource, *datasets: dict(
    kind='least', title=title, methods=every, datasets=datasets or both, resource=resource
  )
  return (
    most('Context-Encoder class', classes['Context-Encoder'], both, ('center',)),
    most('U-Net class', classes['U-Net'], both, holes),
    most('CGAN class', classes['CGAN'], both, holes),
    most('DCGAN class on CelebA', classes['DCGAN'], ('celeba',), holes),
    most('DCGAN class on Places2', classes['DCGAN'], ('places2',), holes),
    most('StackGAN class', classes['StackGAN'], both, holes),
    most('All methods, CelebA, centre holes', every, ('celeba',), ('center',)),
    most('All methods, CelebA, random holes', random, ('celeba',), ('random',)),
    most('All methods, Places2, centre holes', every, ('places2',), ('center',)),
    most('All methods, Places2, random holes', random, ('places2',), ('random',)),
    # Section 4.3.6 names the winner of each set.
    least('Fastest, CelebA', 'seconds_per_image', 'celeba'),
    least('Fastest, Places2', 'seconds_per_image', 'places2'),
    least('Shortest training, CelebA', 'train_hours', 'celeba'),
    least('Shortest training, Places2', 'train_hours', 'places2'),
    least('Least device memory, CelebA', 'device_gb', 'celeba'),
    least('Least device memory, Places2', 'device_gb', 'places2'),
    least('Least host memory, CelebA', 'host_gb', 'celeba'),
    least('Least host memory, Places2', 'host_gb', 'places2'),
  )
