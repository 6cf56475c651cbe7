from gymnasium.envs.registration import register

from envs.worlds import NAMES

register(id="nextbest/Journey-v0", entry_point="envs.journey_env:JourneyEnv")
for _name in NAMES:
    _id = f"nextbest/{_name.title().replace('_', '')}-v0"
    register(id=_id, entry_point="envs.journey_env:of_world", kwargs={"world": _name})
