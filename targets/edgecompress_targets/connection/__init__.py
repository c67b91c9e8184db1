"""What every way to reach a device shares: the protocol of drivers, frames, sessions and ports of serial lines."""
