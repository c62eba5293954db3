"""First-party text environments. Importing this package registers them with Gymnasium.

`feedtune/CharText-v0` writes a text letter by letter, `feedtune/TextEdit-v0` edits one word by word:

    import feedtune_plugins.environments, gymnasium
    env = gymnasium.make("feedtune/CharText-v0", reward=my_reward_source)
"""

from feedtune.errors import missing_extra

try:
    from gymnasium.envs.registration import register
except ImportError as error:
    raise missing_extra("gymnasium", "environments", "feedtune_plugins.environments") from error

__all__: list[str] = []

register("feedtune/CharText-v0", entry_point="feedtune_plugins.environments.char_text:CharText")
register("feedtune/TextEdit-v0", entry_point="feedtune_plugins.environments.text_edit:TextEdit")
