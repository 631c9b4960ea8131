"""What each command is asked. It imports what it needs when it runs, so that `weitiao --help` answers at once."""
