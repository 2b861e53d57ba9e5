"""An installed OpenMV IDE: where it keeps its resources, and the default images among them."""
