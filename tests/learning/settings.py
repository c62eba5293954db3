"""How each card of conf/algorithm learns the small task on each backbone, and how well it has to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A training: epochs, learning rate, the score that it must reach, and what else is not as shipped."""

    epochs: int
    lr: float
    at_least: float
    overrides: tuple[str, ...] = ()


def _alike(setting: Setting) -> dict[str, Setting]:
    return {"lstm": setting, "gru": setting, "transformer": setting}


Row = Mapping[str, Setting | str]

SAMPLES = ("collector.responses=128", "collector.max_new_tokens=3")
DAPO = ("collector.responses=128", "collector.max_new_tokens=4", "algorithm.overlong.limit=6", "algorithm.overlong.margin=3")
ONCE=Setting(80,.01,.8,SAMPLES)
MANY=Setting(40,.01,.8,SAMPLES)
SLOWER=Setting(60,.005,.8,SAMPLES)
ADAM=("optimizer=adam",*SAMPLES)
LOG=("collector.rows=64",)
CQL=(*LOG,"algorithm.conservative=0.1")
ILQL=(*LOG,"algorithm.beta=8","algorithm.target.polyak=0.1")
SETTINGS: dict[str, Row] = {}
for a in ("reinforce","a2c","rloo","remax"):
    SETTINGS[a]={"ngram":Setting(40,.2,.8,SAMPLES),**_alike(ONCE)}
for a in ("ppo","grpo","dr_grpo","gspo","reinforce_pp"):
    SETTINGS[a]={"ngram":Setting(20,.2,.8,SAMPLES),**_alike(MANY)}
SETTINGS["dr_grpo"]["transformer"]=SLOWER
SETTINGS["cispo"]={"ngram":Setting(20,.2,.8,SAMPLES),**_alike(SLOWER)}
SETTINGS["dapo"]={"ngram":Setting(20,.2,.8,DAPO),**_alike(Setting(40,.01,.8,DAPO)),"transformer":Setting(60,.005,.8,DAPO)}
SETTINGS["best_of_n"]={"ngram":Setting(60,.1,.8,SAMPLES),**_alike(ONCE)}
SETTINGS["raft"]={"ngram":Setting(30,.1,.8,SAMPLES),**_alike(MANY)}
SETTINGS["online_dpo"]={"ngram":Setting(40,.2,.8,SAMPLES),**_alike(ONCE)}
SETTINGS["q_learning"]={"ngram":Setting(60,.2,.8,("optimizer=sgd","algorithm.acting.epsilon=0.5","buffer.updates=16",*SAMPLES)),**{b:"x" for b in ("lstm","gru","transformer")}}
SETTINGS["dqn"]={"ngram":Setting(50,.03,.8,ADAM),**_alike(Setting(60,.003,.8,ADAM)),"transformer":Setting(60,.005,.8,ADAM)}
SETTINGS["soft_q"]={"ngram":Setting(60,.03,.8,ADAM),**_alike(Setting(80,.005,.8,ADAM))}
SETTINGS["cql"]={"ngram":Setting(20,.1,.8,CQL),**_alike(Setting(40,.02,.8,(*CQL,"algorithm.target.polyak=0.2"))),"transformer":Setting(80,.01,.8,CQL)}
SETTINGS["ilql"]={"ngram":Setting(20,.1,.8,ILQL),**_alike(Setting(80,.01,.8,ILQL))}
SETTINGS["sft"]={"ngram":Setting(40,.1,.8),**_alike(Setting(40,.01,.8))}
SETTINGS["dpo"]={"ngram":Setting(10,.1,.8),**_alike(Setting(20,.002,.8,("algorithm.beta=0.5",)))}
SETTINGS["reward_model"]={"ngram":Setting(10,.1,.9),**_alike(Setting(30,.01,.9)),"transformer":Setting(60,.005,.9,("backbone.layers=2",))}
