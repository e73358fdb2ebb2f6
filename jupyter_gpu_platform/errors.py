"""Everything that can go wrong and that a caller may want to tell apart.

The tree, with the stable ``code`` that crosses HTTP in a problem document (RFC 9457)::

    GpuPlatformError
    ├── InvalidRequest            invalid_request      400   a flag, field, body or cursor is wrong
    │   ├── InvalidCursor         invalid_cursor       400
    │   ├── FilterTooBroad        filter_too_broad     400   a list would have to look through too many: add a filter
    │   ├── BodyTooLarge          body_too_large       413
    │   ├── NotPicklable          not_picklable        400   a value that is to be sent can't be
    │   ├── CaptureTooLarge       capture_too_large    400   what a cell takes along is over the limit
    │   └── DigestMismatch        digest_mismatch      400   an object's bytes are not those that its name promises
    ├── Unauthenticated           unauthenticated      401   no token, or one that is unknown, expired or revoked
    ├── Forbidden                 forbidden            403   known, but not allowed
    ├── NotFound                  not_found            404
    ├── MethodNotAllowed          method_not_allowed   405
    ├── Conflict                  conflict             409   the thing is in a state that doesn't allow it
    │   ├── IdempotencyMismatch   idempotency_mismatch 409   same Idempotency-Key, other body
    │   ├── ClaimLost             claim_lost           409   another incarnation holds the attempt
    │   └── ObjectMissing         object_missing       409   a job names objects that are not there: upload them first
    ├── Gone                      log_trimmed          410   the cursor is behind the trimmed end: list again
    ├── TooManyRequests           too_many_requests    429   back-pressure: come back later
    ├── InternalError             internal_error       500   a bug of ours
    └── Unavailable               unavailable          503   the service, its store or a peer can't be reached now
        ├── StorageFull           storage_full         503   (the status of both: try again once it is mended)
        └── LocalPlatformError    local_platform       503   the platform on this machine can't be started
            └── StoreTooNew       store_too_new        503   written by a newer release than this program

A class is found again by its code, so that the client raises what the service raised.
"""

from __future__ import annotations

from typing import ClassVar


class GpuPlatformError(Exception):
    """The root of all errors of this project.

    :param message: what happened, in words for the person who called.
    :param hint: what to do about it; shown after the message.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidRequest(GpuPlatformError):
    code, status = "invalid_request", 400


class InvalidCursor(InvalidRequest):
    code = "invalid_cursor"


class FilterTooBroad(InvalidRequest):
    code = "filter_too_broad"


class BodyTooLarge(InvalidRequest):
    code, status = "body_too_large", 413


class DigestMismatch(InvalidRequest):
    code, status = "digest_mismatch", 400


class NotPicklable(InvalidRequest):
    code = "not_picklable"


class CaptureTooLarge(InvalidRequest):
    code = "capture_too_large"


class Unauthenticated(GpuPlatformError):
    code, status = "unauthenticated", 401


class Forbidden(GpuPlatformError):
    code, status = "forbidden", 403


class NotFound(GpuPlatformError):
    code, status = "not_found", 404


class MethodNotAllowed(GpuPlatformError):
    code, status = "method_not_allowed", 405


class Conflict(GpuPlatformError):
    code, status = "conflict", 409


class IdempotencyMismatch(Conflict):
    code = "idempotency_mismatch"


class ClaimLost(Conflict):
    code = "claim_lost"


class ObjectMissing(Conflict):
    code = "object_missing"


class Gone(GpuPlatformError):
    code, status = "log_trimmed", 410


class TooManyRequests(GpuPlatformError):
    code, status = "too_many_requests", 429


class InternalError(GpuPlatformError):
    code, status = "internal_error", 500


class Unavailable(GpuPlatformError):
    code, status = "unavailable", 503


class StorageFull(Unavailable):
    code = "storage_full"


class LocalPlatformError(Unavailable):
    code = "local_platform"


class StoreTooNew(LocalPlatformError):
    code = "store_too_new"


def _tree(root: type[GpuPlatformError]) -> dict[str, type[GpuPlatformError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def from_problem(code: str, message: str, *, hint: str = "") -> GpuPlatformError:
    """Make the error that a problem document stands for; an unknown code gives the root class."""
    return _tree(GpuPlatformError).get(code, GpuPlatformError)(message, hint=hint)
