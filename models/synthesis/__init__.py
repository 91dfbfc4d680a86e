"""Pairs with known truth, made of photographs."""
