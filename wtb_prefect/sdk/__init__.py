"""The Python front door: a project declared in a few lines, a bench that runs it."""
