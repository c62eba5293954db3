"""Language models as judges: what they are asked, how their replies are read, what can be relied on."""

from feedtune.judging.constitution import Constitution
from feedtune.judging.contract import Judge, Question, Reply
from feedtune.judging.judging import Judging, Preferences
from feedtune.judging.reading import weights_at
from feedtune.judging.revising import Revision, revised
from feedtune.judging.rubric import Rubric

__all__ = [
    "Constitution",
    "Judge",
    "Judging",
    "Preferences",
    "Question",
    "Reply",
    "Revision",
    "Rubric",
    "revised",
    "weights_at",
]
