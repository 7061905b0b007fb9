"""Predictions for devices that were not measured."""
