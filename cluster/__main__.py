"""``python -m cluster`` is the command ``quarterdeck``."""

from cluster.commands import main

main()
