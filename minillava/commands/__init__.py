"""One module per verb of the command line; its arguments are declared where it works."""
