"""Libraries that only some people need: imported when they are asked for, and named in one sentence when they are missing."""

import importlib
from typing import Any

from motorbabble.errors import ConfigurationError


def extra(module: str, group: str = "export") -> Any:
    """The module, such as "pyarrow.parquet"; ConfigurationError says how to get it: by the extra `group` of this package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ConfigurationError(f"this needs {library}, which cannot be imported ({error}); pip install motorbabble[{group}]") from None
