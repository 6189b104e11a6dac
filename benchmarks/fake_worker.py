"""A real worker whose trainers are `tests.worker.fake_child`: for measuring what the worker itself costs.

python -m benchmarks.fake_worker --queues compress
"""

import sys

from worker import main, supervisor

# In place: it is the default of a parameter.
supervisor.CHILD[:] = [sys.executable, "-m", "tests.worker.fake_child"]

if __name__ == "__main__":
    main.main()
