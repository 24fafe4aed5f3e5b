"""Train one backbone: the head, fine-tuning, what is kept."""
