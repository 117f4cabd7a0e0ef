"""Networks made from photographs: data, losses, loop, recipes. Knows no command line."""
