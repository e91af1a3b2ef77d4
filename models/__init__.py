"""From tensors to tensors: networks, objectives, metrics and the one training loop. Knows nothing of Ray or shards."""
