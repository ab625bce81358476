from edge_cmcl.host.strategies.base import Settings, Step, Stored, Strategy
from edge_cmcl.host.strategies.c_flat import CFlat
from edge_cmcl.host.strategies.cila import Cila
from edge_cmcl.host.strategies.co2l import Co2L
from edge_cmcl.host.strategies.der import Der
from edge_cmcl.host.strategies.derpp import DerPlusPlus
from edge_cmcl.host.strategies.displacement import Displacement
from edge_cmcl.host.strategies.dns import Dns
from edge_cmcl.host.strategies.dns_released import DnsReleased
from edge_cmcl.host.strategies.ewc import Ewc
from edge_cmcl.host.strategies.gem import Gem
from edge_cmcl.host.strategies.individual import Individual
from edge_cmcl.host.strategies.joint import Joint
from edge_cmcl.host.strategies.ours import Ours
from edge_cmcl.host.strategies.vanilla import Vanilla

_ALL: tuple[type[Strategy], ...] = (
    *(Joint, Individual, Vanilla, Gem, Der, DerPlusPlus, Ewc, Co2L, CFlat, Cila),
    *(Dns, DnsReleased, Displacement, Ours),
)

STRATEGIES: dict[str, type[Strategy]] = {strategy.name: strategy for strategy in _ALL}
"""Every strategy by name, in the order of tables."""

__all__ = ["STRATEGIES", "Settings", "Step", "Stored", "Strategy"]
