"""One thin Prefect task per stage: it calls the step of the library and hands on its record."""

from tasks.environment import prepare

prepare()  # before anything here imports prefect or mlflow
