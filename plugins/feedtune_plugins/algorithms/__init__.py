"""First-party algorithms."""

from feedtune_plugins.algorithms.acting import Acting, LinearEpsilon
from feedtune_plugins.algorithms.advantages import GAE, MonteCarlo
from feedtune_plugins.algorithms.ilql import ILQL, ILQLPolicy
from feedtune_plugins.algorithms.penalties import Adaptive, KLPenalty, Overlong
from feedtune_plugins.algorithms.policy_gradient import PolicyGradient, ValueLoss
from feedtune_plugins.algorithms.preferences import DirectPreference, RewardModelling
from feedtune_plugins.algorithms.q_learning import QLearning
from feedtune_plugins.algorithms.q_policies import PriorPolicy, QPolicy
from feedtune_plugins.algorithms.scaling import RunningScale
from feedtune_plugins.algorithms.sft import FilteredImitation, SupervisedTuning
from feedtune_plugins.algorithms.surrogates import CappedWeight, Clip
from feedtune_plugins.algorithms.targets import TargetNetwork

__all__ = [
    "GAE",
    "ILQL",
    "Acting",
    "Adaptive",
    "CappedWeight",
    "Clip",
    "DirectPreference",
    "FilteredImitation",
    "ILQLPolicy",
    "KLPenalty",
    "LinearEpsilon",
    "MonteCarlo",
    "Overlong",
    "PolicyGradient",
    "PriorPolicy",
    "QLearning",
    "QPolicy",
    "RewardModelling",
    "RunningScale",
    "SupervisedTuning",
    "TargetNetwork",
    "ValueLoss",
]
