"""`python -m robolearn` is `robolearn`; torchrun and other launchers need it in this form."""

import sys

from robolearn.cli import main

sys.exit(main())
