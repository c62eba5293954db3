"""What happens beside training: files of the run folder, the progress bar, periodic evaluation."""

from feedtune.callbacks.evaluation import PeriodicEvaluation
from feedtune.callbacks.files import MetricsCSV, SamplesFile
from feedtune.callbacks.progress import Progress
from feedtune.callbacks.save import SaveLast

__all__ = ["MetricsCSV", "PeriodicEvaluation", "Progress", "SamplesFile", "SaveLast"]
