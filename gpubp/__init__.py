"""gpubp: feedforward networks by explicit backpropagation, on any array library."""

__version__ = "0.1.0"
from gpubp._devices import Device, device, devices
from gpubp._network import Network
