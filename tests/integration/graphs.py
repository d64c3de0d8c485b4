"""What tests of single graphs share with the generated ones: counted nodes and their state."""

from generated.bodies import Body, make_body
from generated.state import CALLS, State

__all__ = ["CALLS", "Body", "State", "make_body"]
