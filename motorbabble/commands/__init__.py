"""What `babble` does for each command longer than a few lines; cli.py is the skin."""
