"""Blinded rating: people look at galleries without names, and what they see is held against chance and planted controls."""
