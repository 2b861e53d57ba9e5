"""The resources of the OpenMV IDE, installed or published, and the default images among them."""
