"""Clients that share no code with framegate: what they understand is what the wire says."""
