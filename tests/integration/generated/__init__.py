"""Whole graphs, made up: what they are, how they are drawn, what plain LangGraph makes of them."""
