"""The only folder that imports ray or mlflow.

Imports point down this list::

    sweeps       a sweep from its flags to its table
    tasks        the jobs that are no sweeps
    doctor       whether work can run here, or on a cluster
    cli          the flags that all jobs share
    tracking     what goes to MLflow
    on_ray       trials under Tune, workers under Train, streams of Data
    planning     which trials a sweep has, and what they will take
    compute      the stages behind one number, each in one process or as one of several workers
    store        what was computed once is kept: storage, stages, checkpoints, locks
"""
