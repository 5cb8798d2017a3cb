"""`python -m tallystick.cli`, for where the command isn't on the path."""

from tallystick.cli import main

main()
