"""Train one backbone: head, then fine-tuning."""
