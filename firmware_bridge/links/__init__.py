from firmware_bridge.links.kept import KeptLink
from firmware_bridge.links.link import Link, LinkEnd
from firmware_bridge.links.open import FORMS, open_link

__all__ = ["FORMS", "KeptLink", "Link", "LinkEnd", "open_link"]
