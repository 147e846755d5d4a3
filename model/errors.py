"""What can go wrong between a configuration, its weights and the network."""

from __future__ import annotations

from live2diff_trt.bundle.errors import Live2DiffError


class ConfigurationError(Live2DiffError):
    """A UNet configuration asks for something this network does not have."""


class WeightsError(Live2DiffError):
    """A state dict does not fit the network: unexpected, missing or mis-shaped keys, all of them listed."""
