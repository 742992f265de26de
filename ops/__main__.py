"""`python -m ops` is the command `pptpcon`."""

from ops.cli.main import main

main()
