"""What happens beside training: files of the run folder, the progress bar, evaluation, alarms, faults."""

from feedtune.callbacks.alarms import Alarms
from feedtune.callbacks.evaluation import PeriodicEvaluation
from feedtune.callbacks.faults import Fault
from feedtune.callbacks.files import MetricsCSV, SamplesFile
from feedtune.callbacks.progress import Progress
from feedtune.callbacks.selfcheck import SelfCheck
from feedtune.checkpoints.saver import SaveCheckpoints

__all__ = [
    "Alarms",
    "Fault",
    "MetricsCSV",
    "PeriodicEvaluation",
    "Progress",
    "SamplesFile",
    "SaveCheckpoints",
    "SelfCheck",
]
