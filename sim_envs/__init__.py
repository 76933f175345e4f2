"""Simulated bodies; sim_envs/tasks is their catalogue."""
