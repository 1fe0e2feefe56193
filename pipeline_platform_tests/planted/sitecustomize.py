"""Read by every Python that has this folder on its PYTHONPATH: plants what PYTHONPLANTED names.

Of the environment, what begins with PYTHON reaches every service. What cannot be planted any more ends the process: a
suite whose bugs are not there proves nothing.
"""

from __future__ import annotations

import os
import sys


def _plant(names: set[str]) -> None:
    if "decode" in names:
        from pipeline_platform.core import events
        from pipeline_platform_tests.planted import poisonous

        events.decode = poisonous
    if "bugs" in names:
        from pipeline_platform_tests.planted import bugs

        bugs.plant()
    if "hasty" in names:
        # The supervisor waits longer after each death; two hundred in a row would be a day of waiting.
        from pipeline_platform.local import units

        if not hasattr(units, "BACKOFF_LIMIT"):
            raise AttributeError("there is no units.BACKOFF_LIMIT to shorten")
        units.BACKOFF_LIMIT = 1.0


try:
    _plant({name for name in os.environ.get("PYTHONPLANTED", "").split(",") if name})
except (ImportError, AttributeError) as error:  # Python itself would only warn, and go on
    print(f"PYTHONPLANTED={os.environ['PYTHONPLANTED']} cannot be planted: {error!r}", file=sys.stderr, flush=True)
    os._exit(70)
