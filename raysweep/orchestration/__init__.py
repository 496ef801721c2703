"""The only folder that imports ray or mlflow."""
