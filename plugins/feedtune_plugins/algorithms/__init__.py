"""First-party algorithms."""

from feedtune_plugins.algorithms.advantages import GAE, ReturnToGo
from feedtune_plugins.algorithms.penalties import Adaptive, KLPenalty
from feedtune_plugins.algorithms.policy_gradient import Clip, PolicyGradient, ValueLoss
from feedtune_plugins.algorithms.q_learning import QLearning, QPolicy
from feedtune_plugins.algorithms.sft import SupervisedTuning

__all__ = [
    "GAE",
    "Adaptive",
    "Clip",
    "KLPenalty",
    "PolicyGradient",
    "QLearning",
    "QPolicy",
    "ReturnToGo",
    "SupervisedTuning",
    "ValueLoss",
]
