"""Errors that tasks tell their user in one line."""

# The command that the user gave: of the installed package, or of a checkout.
PROGRAM = "reblur" if __name__.startswith("reblur_models.") else "python -m models"


class UserError(ValueError):
    """Something that the user can put right. The message says what is required and what arrived."""


def describe(error: UserError | OSError) -> str:
    """The one line of an error: for files that cannot be read or written, which and why."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        return f"{error.filename}: {reason}" if error.filename else reason
    return str(error)
