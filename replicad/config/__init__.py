"""Configuration: TOML and environment in, frozen sections out, and all that is wrong with them at once.

``load`` reads and checks, ``Config`` is the result, ``example`` and ``initial`` write. Importing this costs little: the commands of the command line do it every time.
"""

from replicad.config.loading import Config, Row, load
from replicad.config.values import Address, Reserve
from replicad.config.writing import example, initial

__all__ = ["Address", "Config", "Reserve", "Row", "example", "initial", "load"]
