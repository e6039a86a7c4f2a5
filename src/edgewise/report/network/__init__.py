"""The drawing of a network: what is removed, laid out and as SVG."""
