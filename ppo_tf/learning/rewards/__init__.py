"""What happens to rewards between the environment and the advantage estimator."""
