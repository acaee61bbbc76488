"""``python -m qlung`` is ``qlung``."""

from .book.cli import main

main()
