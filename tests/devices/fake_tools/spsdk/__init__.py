"""As much of NXP's spsdk as the process that waits for the loader uses; blhost is `fake_blhost`."""
