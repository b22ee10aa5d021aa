"""Studies behind the project's choices, each a command that prints what it measured; not part of the package."""
