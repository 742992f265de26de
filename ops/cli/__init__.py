"""The command `pptpcon`: one module a command, imported when it is used."""
