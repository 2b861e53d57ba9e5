"""A desktop's notification service that writes down what it is sent: one JSON list a line.

Runs as the user, on the user's bus: python3 notifications.py FILE. Says "ready" when it has the
name (Desktop Notifications Specification 1.2).
"""

from __future__ import annotations

import json
import sys

from jeepney import HeaderFields, MessageType, new_error, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

NAME = "org.freedesktop.Notifications"


def main(path: str) -> None:
    connection = open_dbus_connection(bus="SESSION", auth_timeout=60)
    connection.send_and_get_reply(message_bus.RequestName(NAME))
    print("ready", flush=True)
    count = 0
    while True:
        message = connection.receive()
        if message.header.message_type is not MessageType.method_call:
            continue
        asked = message.header.fields.get(HeaderFields.member)
        if asked == "GetServerInformation":
            answer = new_method_return(message, "ssss", ("recorder", "tests", "1", "1.2"))
        elif asked == "GetCapabilities":
            answer = new_method_return(message, "as", (["body", "body-markup"],))
        elif asked == "Notify":
            count += 1
            program, _, _, title, text, *_ = message.body
            with open(path, "a") as file:
                file.write(json.dumps([program, title, text]) + "\n")
            answer = new_method_return(message, "u", (count,))
        elif asked == "CloseNotification":
            answer = new_method_return(message)
        else:
            answer = new_error(message, "org.freedesktop.DBus.Error.UnknownMethod")
        connection.send(answer)


if __name__ == "__main__":
    main(sys.argv[1])
