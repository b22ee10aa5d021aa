"""How ToyRef and its networks were made: scenes, phrases, and one training script per network."""
