"""The chain of stages behind one number, each computed in one process or as one of several."""
