"""The kind of value that is a network of addresses."""

from __future__ import annotations

from replicad.config.values import Strings, quoted
from replicad.errors import InputError
from replicad.model.access import Network, check_network


class Cidr(Strings):
    """A network, such as that of a site or of a proxy."""

    expects = 'a network such as "10.4.0.0/16"'

    def parse(self, value: object) -> Network:
        """The network; ValueError."""
        if not isinstance(value, str):
            raise ValueError(f"{self.expects} expected")  # noqa: TRY004 - one error type for all that is wrong with a value
        try:
            return check_network(value)
        except InputError as error:
            raise ValueError(error.message) from None

    def show(self, value: Network) -> str:
        """In CIDR notation."""
        return quoted(str(value))
