"""Routes by resource; `api.app` puts them under ``/v1``."""
