"""Tiny models, one for every way data flows, and the laws that every model must obey.

For tests of edgewise and of rules that users register: `check_laws(model, args)` runs all laws
on a model of your own. The package itself never imports this module.
"""

from . import networks as networks
from . import sized as sized
from .laws import MASK_LAWS as MASK_LAWS
from .laws import check_laws as check_laws
from .laws import random_mask as random_mask
from .models import ZOO as ZOO
from .models import build as build
