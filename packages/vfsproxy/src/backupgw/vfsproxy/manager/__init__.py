"""The wire that managers of Backend.AI speak: its storage proxy's manager-facing API."""
