"""Part of the way from the log to a bold policy: as far as validation customers can follow it.

A bold policy may be much better, and the log unable to show it: few of its customers were treated like that. Policies
in between, clone^(1 − s) · bold^s, share most of what they do with the log. What they gain grows with s at first fast,
then slowly, and what nobody knows of it grows the other way round; so a part of the way there is shown where the whole
is not (conservative policy iteration: Kakade & Langford 2002; improvement with high confidence: Thomas, Theocharous &
Ghavamzadeh 2015). What it writes then supports the next part of the way.

Fails to help where the first step from the log is a loss, or where even a quarter of the way is more than the log can
judge.
"""

from dataclasses import dataclass

from engine.spec import Spec
from envs.outcomes import OutcomeModel
from training.choice import Chooser, Pick
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower, blended

PARTS = (0.25, 0.5, 0.75)
"""Parts of the way that are tried, the most careful first."""

DOUBT = 2.0
"""Standard errors that are taken from each one's gain: it is there to be shown, as the bold one is there to be good."""


@dataclass(frozen=True, slots=True)
class Blend:
    """network: of the policy; part: of the way, of PARTS; pick: what the validation customers said."""

    network: TwoTower
    part: float
    pick: Pick


def blend(
    spec: Spec, model: OutcomeModel | None, valid: Journeys, networks: tuple[TwoTower, TwoTower], seed: int = 0
) -> Blend:
    """`networks`: the clone and the bold policy, made from it. The first of PARTS where validation customers support
    none.
    """
    clone, bold = networks
    attributes = spec.attributes.encode(spec.catalogue)
    chooser = Chooser(spec, valid, NetworkPolicy(clone, attributes), seed, model)
    found = {f"{part:g}": (part, blended(clone, bold, part)) for part in PARTS}
    for name, (_, network) in found.items():
        chooser.consider(name, NetworkPolicy(network, attributes))
    pick = chooser.best(DOUBT)
    part, network = found[pick.name]
    return Blend(network, part, pick)
