"""How good is an encoder or an index? Metrics, their uncertainty, and the protocol that measures them."""
