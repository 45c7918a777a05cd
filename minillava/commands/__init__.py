"""The verbs of the command line, one module each; a module also declares its verb's arguments."""

MOST_LISTED = 20  # problems that the terminal names; files and --json have all
