"""Write the API's OpenAPI document to the file that is named; `npm run types` makes types of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from api.app import create_app
from cluster.settings import DeckSettings

if __name__ == "__main__":
    # Nothing is connected to before the application starts.
    deck = DeckSettings(redis_url="redis://127.0.0.1:1", database_url="postgresql://127.0.0.1:1/none")
    document = create_app(deck, connect=False).openapi()
    Path(sys.argv[1]).write_text(json.dumps(document, indent=1) + "\n")
