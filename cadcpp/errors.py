"""Every error that cadcpp raises on purpose.

CadError
├── ConfigError (ValueError)   a setting or an argument that cannot work
├── ModelError (ValueError)    a model file that cannot be used
│   ├── PairError              a draft that does not fit its verifier
│   └── RecurrentError         a model with a recurrent state of an unknown kind
├── NativeError (RuntimeError) llama.cpp refused a call
│   └── ClosedError            something was used after it was closed, or in a forked child of its process
├── ContextFull (RuntimeError) the text no longer fits the context
├── WorkerError (RuntimeError) a worker on another machine cannot be used, or is lost
└── ToolError                  making or fetching a file failed

A message says what, which value, and what to do about it, in one line.
"""


class CadError(Exception):
    """Base of all errors of this package."""


class ConfigError(CadError, ValueError):
    """A setting or an argument that cannot work."""


class ModelError(CadError, ValueError):
    """A model file that cannot be used."""


class PairError(ModelError):
    """A draft model that does not fit its verifier."""


class RecurrentError(ModelError):
    """A model with a recurrent state of a kind that is not known."""


class NativeError(CadError, RuntimeError):
    """llama.cpp refused a call."""


class ClosedError(NativeError):
    """Something was used after it was closed, or in a forked child of the process that made it."""


class ContextFull(CadError, RuntimeError):
    """The text no longer fits the context."""


class WorkerError(CadError, RuntimeError):
    """A worker on another machine cannot be used, or is lost."""


class ToolError(CadError):
    """Making or fetching a file failed."""
