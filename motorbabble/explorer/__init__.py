"""The web explorer: a page on this machine to watch a life, go through what was recorded, and ask what if.

It has no private library: browsing is the reader, what-ifs are `imagine`, attention is `analysis`, training is `live` and the learner.
Work that lasts belongs to the application (workshop.py) and not to the page that asked for it, so that a closed tab ends nothing and
every browser sees the same run; what one browser looks at is that browser's alone.
"""
