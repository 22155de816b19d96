"""The canvas world model in your browser: run it over a recorded session and watch canvases, predictions, errors and the training loss.

    python examples/toroidal_dot_runner_example.py --sequence double_move --record --delay 0    makes a session, if there is none
    python examples/concat_world_model_explorer_gradio.py    then open http://127.0.0.1:7861, tab "Canvas"

Needs pip install 'motorbabble[explorer]', and nothing from the network. It is the same page as session_explorer_gradio.py, on a port of its own.
Only this machine can open it; Ctrl+C ends it, the robot first.
"""

import argparse
from pathlib import Path

from motorbabble.cli import sentences
from motorbabble.explorer.server import serve
from motorbabble.explorer.settings import ExplorerConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7861, help="7861 unless given; 0 for any that is free")
    parser.add_argument("--sessions", type=Path, default=Path("saved/sessions"), help="what was recorded; saved/sessions unless given")
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    options = parser.parse_args()

    serve(ExplorerConfig(port=options.port, sessions=options.sessions, open=options.open))


if __name__ == "__main__":
    with sentences("concat_world_model_explorer_gradio.py"):
        main()
