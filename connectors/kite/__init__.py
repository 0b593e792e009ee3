"""Zerodha's Kite Connect v3: market data, and a simulator that speaks the same wire."""
