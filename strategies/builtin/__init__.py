"""The strategies that ship with Quarterdeck: examples to read, copy and run."""
