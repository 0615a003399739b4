"""`python -m lcm` is the `lcm` command."""

from lcm.cli import main

raise SystemExit(main())
