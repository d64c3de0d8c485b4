"""The adapters of the ports: databases, files, LangGraph and the environment."""
