"""Time on a device: profiles, cost models, block tables, measurement. Importing it does not import torch."""

from hwnas.latency.cost_model import CostModel
from hwnas.latency.device import DeviceProfile, device_folder, load_profile, shipped_devices

__all__ = ["CostModel", "DeviceProfile", "device_folder", "load_profile", "shipped_devices"]
