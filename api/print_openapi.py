"""``python -m api.print_openapi``: the OpenAPI document, from which the panel's types are made."""

from __future__ import annotations

import json

from api.app import create_app
from cluster.settings import DeckSettings

if __name__ == "__main__":
    # Nothing is connected to: the addresses only have to be addresses.
    nowhere = DeckSettings(database_url="postgresql://nowhere", redis_url="redis://nowhere")
    print(json.dumps(create_app(nowhere, connect=False).openapi(), indent=1))
