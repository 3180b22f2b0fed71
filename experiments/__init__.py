"""Studies, the command line, run directories and what people see."""
