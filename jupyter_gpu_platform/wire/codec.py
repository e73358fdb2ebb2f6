"""Messages to bytes and back, with limits: MessagePack by msgspec, refused by name where it isn't understood."""

from __future__ import annotations

from typing import Any

import msgspec

from .. import errors
from .messages import MAX_MESSAGE, FromAgent, FromService, Message

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_service: msgspec.msgpack.Decoder[FromService] = msgspec.msgpack.Decoder(FromService)


def encode(message: Message) -> bytes:
    """Encode one message.

    :raises BodyTooLarge: no peer would take it.
    """
    data = _encoder.encode(message)
    if len(data) > MAX_MESSAGE:
        raise errors.BodyTooLarge(f"a message of {len(data)} bytes, {MAX_MESSAGE} are allowed")
    return data


def decode_from_agent(data: bytes | str) -> FromAgent:
    """Decode what an agent sent.

    :raises InvalidRequest: it is too big, malformed, or of a kind that this release doesn't know.
    """
    message: FromAgent = _decode(_from_agent, data)
    return message


def decode_from_service(data: bytes | str) -> FromService:
    """Decode what the control service sent; raises as :func:`decode_from_agent` does."""
    message: FromService = _decode(_from_service, data)
    return message


def _decode(decoder: msgspec.msgpack.Decoder[Any], data: bytes | str) -> Any:
    if isinstance(data, str):
        raise errors.InvalidRequest("messages are binary, this one is text")
    if len(data) > MAX_MESSAGE:
        raise errors.BodyTooLarge(f"a message of {len(data)} bytes, {MAX_MESSAGE} are allowed")
    try:
        return decoder.decode(data)
    except msgspec.DecodeError as error:
        raise errors.InvalidRequest(f"message {_name(data)!r} is not understood: {error}") from None


def _name(data: bytes) -> str:
    """The name that a message which can't be decoded gives itself."""
    try:
        raw = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "?"
    name = raw.get("m") if isinstance(raw, dict) else None
    return name[:40] if isinstance(name, str) else "?"
