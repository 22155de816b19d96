"""The explorer in your browser: go through recorded sessions of every robot, ask a model what it sees and what if, train it on what you look at.

    python examples/session_explorer_gradio.py     then open http://127.0.0.1:7860, tab "Sessions"

Needs pip install 'motorbabble[explorer]', and nothing from the network. Only this machine can open the page; Ctrl+C ends it, the robot first.
"""

import argparse
from pathlib import Path

from motorbabble.cli import sentences
from motorbabble.explorer.server import serve
from motorbabble.explorer.settings import ExplorerConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7860, help="7860 unless given; 0 for any that is free")
    parser.add_argument("--sessions", type=Path, default=Path("saved/sessions"), help="what was recorded; saved/sessions unless given")
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    options = parser.parse_args()

    serve(ExplorerConfig(port=options.port, sessions=options.sessions, open=options.open))


if __name__ == "__main__":
    with sentences("session_explorer_gradio.py"):
        main()
