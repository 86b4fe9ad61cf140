"""Names and limits of the wire that both sides share."""

from __future__ import annotations

import re

COOKIE = "2f1d9c7e5b3a4860"
PROTOCOL = 1
SERVICE = "stacktrail.plugin.v1.Plugin"
NAME = re.compile(r"[a-z][a-z0-9_-]*")
MAX_MESSAGE = 64 << 20
LIMITS = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]
