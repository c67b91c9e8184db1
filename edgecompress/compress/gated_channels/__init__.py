"""Input-dependent channels: gates that close blocks of channels, by what the sample is."""
