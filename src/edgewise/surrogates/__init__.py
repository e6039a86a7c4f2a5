"""Surrogates: scikit-learn estimators that predict the loss of a mask (1 = removed).

All have `fit(X, y)`, `predict(X, return_std=False)` in original units and
`predict_link(X, return_std=False)` on the scale of their `link`; X is [n_masks, n_units].

Examples:
    >>> model = ew.surrogates.GraphGP(graph).fit(X, losses)
    >>> model.predict(candidates).shape
    (4,)
"""

from .bootstrap import Bootstrap as Bootstrap
from .cross_gamma import CrossGamma as CrossGamma
from .degree2 import Degree2 as Degree2
from .fcn import FCN as FCN
from .graph_gp import GraphGP as GraphGP
from .intervals import calibrate as calibrate
from .linear import Linear as Linear
from .logistic import Logistic as Logistic
from .path_sum import PathSum as PathSum
from .trees import Trees as Trees
from .unit_gp import UnitGP as UnitGP
