"""The same networks in PyTorch, to be timed beside this library's."""
