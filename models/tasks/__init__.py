"""Commands, one a file: `add_arguments(parser)` and `run(args)`. No task imports another."""
