"""The same networks in PyTorch, to be timed beside this library's. Only the run ``peer_benchmark`` imports them."""
