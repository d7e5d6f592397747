"""What a user can get wrong, as exceptions with one-line messages.

    UnclipError
    ├── ConfigError     a recipe, an override or a network's shape that cannot be
    ├── DataError       pictures, captions, shards or prepared folders that cannot be read
    ├── WeightsError    bundles and checkpoints that are missing, torn or do not fit
    └── RequestError    a prompt, size, count or mask that the model cannot serve

A message says what was given, what was expected and what to do. The command line prints it on one line and exits with 2.
"""


class UnclipError(Exception):
    """The base of every error that is the caller's to mend."""


class ConfigError(UnclipError):
    """A recipe, an override or a network's shape that cannot be."""


class DataError(UnclipError):
    """Pictures, captions, shards or prepared folders that cannot be read."""


class WeightsError(UnclipError):
    """Bundles and checkpoints that are missing, torn or do not fit."""


class RequestError(UnclipError):
    """A prompt, size, count or mask that the model cannot serve."""
