"""What a bench tells its listeners: the classes to subscribe to with `bench.events`."""

from wtb_prefect.domain.events import *  # noqa: F403 - the same names, where people look for them
