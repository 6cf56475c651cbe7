from gymnasium.envs.registration import register

register(id="nextbest/Journey-v0", entry_point="envs.journey_env:JourneyEnv")
register(id="nextbest/Retail-v0", entry_point="envs.journey_env:retail")
