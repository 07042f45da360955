"""How far the state machines go: a little in every run, and far when they are told to:

pytest --hypothesis-profile=long --hypothesis-seed=1 tests/core/hub/test_state_machine.py
"""

from hypothesis import HealthCheck, settings

LONG = "long"
ALL_CHECKS = list(HealthCheck)

settings.register_profile(
    LONG,
    max_examples=400,
    stateful_step_count=100,
    database=None,
    deadline=None,
    suppress_health_check=ALL_CHECKS,
    print_blob=True,
)


def bounds(examples: int, steps: int) -> settings:
    """Of a state machine: so many examples of so many steps, the same ones every time; more in the long profile."""
    if settings.get_current_profile_name() == LONG:
        return settings.get_profile(LONG)
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=ALL_CHECKS,
    )
