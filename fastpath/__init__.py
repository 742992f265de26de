"""The compiled data path and the shared session table."""
