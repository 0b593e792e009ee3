"""Binance spot and USD-M futures: market data, and a simulator that speaks the same wire."""
