"""``python -m streetwarden`` is the command."""

from streetwarden.cli import main

main()
