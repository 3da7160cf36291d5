"""A labelled catalogue -> an encoder that knows what "the same product" means there; imports torch."""
