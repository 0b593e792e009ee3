"""Alpaca: US shares over trading API v2 and market data v2, and a simulator that speaks the same wire."""
