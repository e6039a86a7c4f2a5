"""The laws that every model must obey.

For rules that users register: `check_laws(model, args)` runs all laws on a model of your own. The
package itself never imports this module.
"""

from .laws import MASK_LAWS as MASK_LAWS
from .laws import check_laws as check_laws
from .laws import random_mask as random_mask
