"""`python -m ops.console --boot-fd N`, started by the keeper."""

from ops import privileges

privileges.die_with_parent()  # before the slow imports, or an orphan could outlive its keeper

from ops.console.process import main  # noqa: E402

raise SystemExit(main())
