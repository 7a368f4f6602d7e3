"""`python -m svilm`, which torchrun needs."""

from svilm.cli import main

main()
