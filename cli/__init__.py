"""The `paramserve` command."""
