"""LangGraph graphs: finding them, swapping their nodes, running them up to a gate."""
