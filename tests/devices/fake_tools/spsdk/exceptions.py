"""See `spsdk`."""


class SPSDKError(Exception):
    pass
