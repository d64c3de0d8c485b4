"""What the subcommands of `wtb` do; each takes the parsed arguments and gives an exit status."""
