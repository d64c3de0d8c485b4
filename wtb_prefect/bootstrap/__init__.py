"""The only place where adapters meet ports; a module for each amount of it that is needed."""
