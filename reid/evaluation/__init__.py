"""From a network to scores: features, evaluation protocols, whitening."""
