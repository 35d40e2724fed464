"""ppo_tf: proximal policy optimisation for TensorFlow and Keras 3, in interchangeable parts.

The public names are listed in `__init__.pyi` and loaded on first use, so that code that does not
need TensorFlow (help texts, presets, argument checks) does not wait for it.
"""

import lazy_loader

from ppo_tf._version import __version__ as __version__
from ppo_tf.support import quiet

quiet.quieten_tensorflow()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
