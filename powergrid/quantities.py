"""Every number that is reported, once: name, unit, meaning, owner and how it adds up over days and agents.

Rewards, infos, ``describe()``, training's metrics, an evaluation's columns and ``docs/metrics.md`` read these tables,
so that a number cannot have two meanings. What agents observe is another table, that of the channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Adding = Literal["sum", "mean", "last", "max", "min"]
Sharing = Literal["sum", "min", "max", "same"]
Owner = Literal[
    "agent", "zone", "network", "training", "policy", "evaluation",
    "node", "bus", "branch", "switchgear", "device", "action", "channel",
]  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """One reported number; a few texts stand among them, with the unit ``text``.

    Attributes:
        name: Its name in infos, files and tables; ``<agent>`` and its like stand for any name.
        unit: Its unit, empty where it has none.
        meaning: What it says.
        owner: Whose it is.
        daily: What the steps of a day, or of an episode, come to.
        of_agents: What the agents' come to for one controller; ``same`` where all agents have one number.
        money: Whether it is money that changes hands, so that costs add it up.
        weight: Of a reward term, its weight where a scenario says nothing [USD per unit].
        where: Where it is reported, if not everywhere.
        alias_of: The number that it is an older name of; such a name is reported for one more release.
        theirs: Of a training, its path in RLlib's result.
        summarised: Of an evaluation, what its days come to in the summary, ``per_day`` as of 24 hours; empty if none.
    """

    name: str
    unit: str
    meaning: str
    owner: Owner
    daily: Adding = "mean"
    money: bool = False
    weight: float | None = None
    where: str = ""
    alias_of: str = ""
    theirs: str = ""
    summarised: Literal["", "per_day", "mean", "max", "min"] = ""
    of_agents: Sharing = "same"


def _own(name: str, unit: str, meaning: str, owner: Owner, daily: Adding = "mean", of: Sharing = "sum") -> Quantity:
    # Every agent has its own: one controller over all of them has the sum, unless an extreme is meant.
    return Quantity(name, unit, meaning, owner, daily, of_agents=of)


def _term(
    name: str, unit: str, meaning: str, weight: float, *, money: bool = False, told: bool = True, where: str = ""
) -> Quantity:
    # A reward is a sum over the steps, so its terms are, those in pu too, whatever else is averaged.
    summarised: Literal["", "per_day"] = "per_day" if told else ""
    return Quantity(name, unit, meaning, "agent", "sum", money, weight, where, summarised=summarised, of_agents="sum")


_WEIGHED, _COOLED = "where it has a weight", "where there are buildings and it has a weight"
#: Costs that make the reward, each in its unit. What is stored and what would have been bought anyway is no money.
REWARD_TERMS = (
    _term("energy_cost_usd", "USD", "energy imported by the zone at the price of the step; negative when it exports",
          1.0, money=True),
    _term("reference_cost_usd", "USD", "what the zone's demand less all its sun costs at that price, losses left out",
          -1.0, told=False),
    _term("generation_cost_usd", "USD", "fuel and starts of the agent's generators", 1.0, money=True),
    _term("storage_wear_usd", "USD", "wear of the agent's storage", 1.0, money=True),
    _term("stored_energy_usd", "USD", "energy taken out of the agent's storage, at the day's mean price", 1.0),
    _term("switching_wear_usd", "USD", "wear of the agent's switchgear", 1.0, money=True),
    _term("unserved_kwh", "kWh", "energy owed to flexible loads and vehicles and not delivered in time, and demand of "
          "the zone without supply", 2.0),
    _term("curtailed_kwh", "kWh", "sun not used", 0.0),
    _term("losses_kwh", "kWh", "an equal part of the network's losses", 0.0),
    _term("voltage_violation_pu", "pu", "what nodes of the zone are outside the band, and a part of those in no zone",
          1.0, told=False),
    _term("overload_pu", "pu", "what branches of the zone carry above their rating, and a part of those in no zone",
          1.0, told=False),
    _term("soc_deviation_kwh", "kWh", "how far from its start the agent's storage ends the episode, at the last step "
          "of it", 0.0, told=False),
    _term("peak_rise_kw", "kW", "an equal part of how far the network's import rises above its highest of the episode, "
          "so that a day's sum is its peak", 0.0, told=False, where=_WEIGHED),
    _term("bus_extremes_pu", "pu", "what the highest and the lowest voltage of each bus of the zone are outside the "
          "band, and a part of those in no zone", 0.0, told=False, where=_WEIGHED),
    _term("losses_share", "0 to 1", "an equal part of the network's losses over its import", 0.0, told=False,
          where=_WEIGHED),
    _term("gear_moves", "positions", "positions moved by the agent's capacitors, regulators and switches", 0.0,
          told=False, where=_WEIGHED),
    _term("discharge_share", "pu", "power over rating at which the agent's batteries are set to discharge, summed up",
          0.0, told=False, where=_WEIGHED),
    _term("connection_violation_pu", "pu", "what the farthest node of the agent's `pcc` is outside the band", 0.0,
          told=False, where=_WEIGHED),
    _term("hvac_kwh", "kWh", "energy that the agent's buildings take for cooling", 0.0, where=_COOLED),
    _term("discomfort_k2h", "K²h", "squares of what zones of the agent's buildings are outside the comfort band, over "
          "time", 1.0, where=_COOLED),
    _term("soc_deviation_share", "pu", "how far from its start the state of charge of the agent's batteries ends the "
          "episode, summed up, at the last step of it", 0.0, told=False, where=_WEIGHED),
    _term("shared_losses_usd", "USD", "an equal part of what losses outside all zones cost at the price of the step",
          0.0, money=True, where=_WEIGHED),
    _term("reactive_kvarh", "kvarh", "reactive energy given or taken by devices whose reactive power the agent decides",
          0.0, where=_WEIGHED),
    _term("infeasible_kwh", "kWh", "active energy that was asked of the agent's devices beyond what they could do", 0.0,
          where=_WEIGHED),
)  # fmt: skip
#: Names of the reward terms, and of those that are money.
TERMS = tuple(term.name for term in REWARD_TERMS)
#: Those that are always counted, in the order of every array of terms; others come after where they have a weight.
COUNTED_TERMS = tuple(term.name for term in REWARD_TERMS if not term.where)
MONEY_TERMS = tuple(term.name for term in REWARD_TERMS if term.money)

_SWITCHES, _EVENTS = "where there are switches", "where there are events or rules of switching"
_FALLBACK = "with `never_worse_than`"
_SUPPLY = "where there are switches, events or rules of switching"

#: What infos hold of each agent besides the terms.
AGENT_METRICS = (
    _own("voltage_violations", "nodes", "nodes of the zone outside the band", "zone", "sum"),
    _own("zone_v_min_pu", "pu", "lowest voltage of the zone", "zone", of="min"),
    _own("zone_v_max_pu", "pu", "highest voltage of the zone", "zone", of="max"),
    _own("zone_overloads", "branches", "branches of the zone above their normal rating", "zone", "sum"),
    _own("import_kw", "kW", "power imported by the zone at its boundary", "zone"),
    _own("delivered_kw", "kW", "power delivered by the agent's devices, into the grid", "agent"),
    _own("delivered_kvar", "kvar", "reactive power delivered by the agent's devices, into the grid", "agent"),
    _own("projection_kw", "kW", "how far setpoints were moved to be feasible, summed over devices", "agent"),
    _own("projection_kvar", "kvar", "the same for reactive power", "agent"),
    _own("projected_devices", "devices", "devices whose setpoint was moved", "agent"),
    _own("throughput_kwh", "kWh", "energy charged and discharged by the agent's storage", "agent", "sum"),
    _own("cycles", "cycles", "equivalent full cycles of the agent's storage since reset", "agent", "last"),
)
AGENT_EVENT_METRICS = (
    Quantity("held_switches", "switches", "switches that the rules of reconfiguration kept where they were", "agent",
             where=_EVENTS, of_agents="sum"),
)  # fmt: skip
_COSTS = "with `costs`"
#: Costs of constrained learning, by what ``costs.of`` calls them; the first is the sum of those that are chosen.
AGENT_COST_METRICS = (
    Quantity("cost", "", "sum of the costs that `costs.of` names", "agent", "sum", where=_COSTS, of_agents="sum"),
    Quantity("cost_node_hours", "node-h", "nodes of the zone outside the band, and an equal part of those in no zone, "
             "over time", "agent", "sum", where=_COSTS, of_agents="sum"),
    Quantity("cost_branch_hours", "branch-h", "branches of the zone above their normal rating, and an equal part of "
             "those in no zone, over time", "agent", "sum", where=_COSTS, of_agents="sum"),
    *(Quantity(f"cost_{term}", unit, f"`{term}`, as a cost", "agent", "sum", where=_COSTS, of_agents="sum")
      for term, unit in (("voltage_violation_pu", "pu"), ("overload_pu", "pu"), ("unserved_kwh", "kWh"))),
)  # fmt: skip
AGENT_FALLBACK_METRICS = (
    Quantity("handed_back_devices", "devices", "devices of the agent that were set to what the feeder's own controls "
             "have them do and not to what its actions say", "agent", "sum", where=_FALLBACK, of_agents="sum"),
)  # fmt: skip
#: How far outside the band a node may be and not be counted, besides 0 [pu]: what a controller that holds a limit
#: leaves by its tolerance, and what a customer would notice.
VIOLATION_LEVELS_PU = (0.001, 0.01)
_LEVELS = {level: f"_above_{level:g}_pu".replace(".", "_") for level in VIOLATION_LEVELS_PU}
#: What ends the names of the numbers that count these.
VIOLATION_SUFFIXES = tuple(_LEVELS.values())
#: And what they hold of the network, the same for every agent.
NETWORK_METRICS = (
    Quantity("network_violations", "nodes", "nodes of the network outside the band", "network", "sum"),
    Quantity("network_violation_pu", "pu", "sum of what nodes of the network are outside the band", "network"),
    Quantity("network_v_min_pu", "pu", "lowest voltage of the network", "network"),
    Quantity("network_v_max_pu", "pu", "highest voltage of the network", "network"),
    Quantity("network_overloads", "branches", "branches of the network above their normal rating", "network", "sum"),
    Quantity("network_losses_kw", "kW", "losses of all delivering elements", "network"),
    Quantity("network_unbalance_pu", "pu", "highest voltage unbalance of a three-phase bus", "network"),
    Quantity("source_p_kw", "kW", "power imported from the transmission side", "network"),
    Quantity("operations", "operations", "positions moved by all switchgear, the feeder's own included", "network",
             "sum", summarised="per_day"),
    Quantity("price_usd_per_kwh", "USD/kWh", "price of the step", "network"),
    Quantity("converged", "0 or 1", "whether the power flow converged", "network"),
    *(Quantity(f"network_violations{suffix}", "nodes", f"nodes of the network more than {level:g} pu outside the band",
               "network", "sum") for level, suffix in _LEVELS.items()),
)  # fmt: skip
SUPPLY_METRICS = (
    Quantity("network_unserved_kwh", "kWh", "demand of the step without supply, shed or below 0.5 pu, vehicles left "
             "out", "network", "sum", where=_SUPPLY),
    Quantity("dead_nodes", "nodes", "nodes that nothing feeds; they violate no limit", "network", where=_SUPPLY),
)  # fmt: skip
NETWORK_EVENT_METRICS = (
    Quantity("events_on", "events", "events that are on", "network", where=_EVENTS),
)  # fmt: skip
NETWORK_FALLBACK_METRICS = (
    Quantity("handed_back", "steps", "whether devices were handed back to the feeder's own controls in the step",
             "network", "sum", where=_FALLBACK, summarised="per_day"),
)  # fmt: skip
ISLAND_METRICS = (
    Quantity("islands", "microgrids", "microgrids that run on their own forming source", "network", where=_SWITCHES),
    Quantity("forming_kw", "kW", "power given by all forming sources", "network", where=_SWITCHES),
    Quantity("unserved_kw", "kW", "older name of `network_unserved_kwh`, as power", "network", where=_SWITCHES,
             alias_of="network_unserved_kwh"),
    Quantity("dark_nodes", "nodes", "older name of `dead_nodes`", "network", where=_SWITCHES, alias_of="dead_nodes"),
)  # fmt: skip
#: What infos hold to tell one step from another.
INFO_LABELS = (
    Quantity("worst_node", "text", "node farthest outside the band, or nearest to its limit", "network",
             where="with `infos: full`"),
    Quantity("day", "days", "day of the profiles that is played, from their first", "network"),
    Quantity("events", "text", "events that are on, and the place that each befalls", "network",
             where=f"with `infos: full`, {_EVENTS}"),
    Quantity("feeder", "text", "feeder that is played", "network",
             where="with `infos: full`, where the scenario has several"),
    Quantity("observed", "entries", "entries of the observation that are of the feeder that is played; what follows is "
             "padding", "network", where="for one controller, where the scenario has feeders of which differently much "
             "is seen"),
    Quantity("cost_usd", "USD", "money of all agents: energy bought less energy sold, fuel and starts, wear", "network",
             "sum", money=True, where="for one controller", summarised="per_day"),
)  # fmt: skip
#: All that infos may hold.
STEP = (
    *REWARD_TERMS,
    *AGENT_METRICS,
    *AGENT_EVENT_METRICS,
    *AGENT_COST_METRICS,
    *AGENT_FALLBACK_METRICS,
    *NETWORK_METRICS,
    *SUPPLY_METRICS,
    *NETWORK_EVENT_METRICS,
    *NETWORK_FALLBACK_METRICS,
    *ISLAND_METRICS,
    *INFO_LABELS,
)

_LEARNERS, _REPLAY, _LIMITED = "learners/<policy>/", "SAC and DQN", "with `cost_limit`"


def _training(name: str, unit: str, meaning: str, theirs: str = "", where: str = "", alias_of: str = "") -> Quantity:
    return Quantity(name, unit, meaning, "training", where=where, alias_of=alias_of, theirs=theirs)


def _learner(name: str, unit: str, meaning: str, theirs: str, where: str = "") -> Quantity:
    return Quantity(name, unit, meaning, "policy", where=where, theirs=_LEARNERS + theirs)


#: Columns of ``progress.csv`` and names in TensorBoard, in their order on the page.
TRAINING = (
    _training("iteration", "iterations", "iterations done; in `progress.csv` only"),
    _training("time_s", "s", "time trained, also before a resume"),
    _training("env_steps", "steps", "environment steps sampled; what TensorBoard shows the others against"),
    _training("env_steps_per_s", "steps/s", "environment steps of the iteration over its time"),
    _training("episodes", "episodes", "episodes finished, also before a resume"),
    _training("episode_return_mean", "reward", "return summed over agents, mean of the newest 100 episodes",
              "env_runners/episode_return_mean"),
    _training("episode_return_min", "reward", "the lowest of them", "env_runners/episode_return_min"),
    _training("episode_return_max", "reward", "the highest of them", "env_runners/episode_return_max"),
    _training("episode_len_mean", "steps", "length of those episodes", "env_runners/episode_len_mean"),
    _training("episode_reward_mean", "reward", "`episode_return_mean`, as earlier versions of RLlib name it",
              alias_of="episode_return_mean"),
    _training("agent_return/<agent>", "reward", "the return of one agent, mean of those episodes"),
    _learner("policy_loss", "", "loss of the policy; mean over policies, as all down to `lr`", "policy_loss"),
    _learner("vf_loss", "reward²", "loss of the value function", "vf_loss"),
    _learner("entropy", "nat", "entropy of the actions' distribution: how much is explored", "entropy"),
    _learner("kl", "nat", "divergence of the new policy from that which sampled", "mean_kl_loss"),
    _learner("vf_explained_var", "at most 1", "part of the returns' variance that the value function explains",
             "vf_explained_var"),
    _learner("lr", "", "learning rate", "default_optimizer_learning_rate"),
    _learner("qf_loss", "", "loss of the Q networks", "qf_loss", _REPLAY),
    _learner("qf_mean", "reward", "mean value of the actions in the batch", "qf_mean", _REPLAY),
    _learner("alpha", "reward/nat", "weight of the entropy", "alpha_value", "SAC"),
    _training("<policy>/<name>", "", "the same of one policy", where="where there are several"),
    _training("episode_cost/<cost>", "", "what an episode costs all agents on the iteration's steps", where=_LIMITED),
    _training("multiplier/<cost>", "", "how much a limited cost weighs beside the reward", where=_LIMITED),
    _training("env_step_failures", "failures", "how often environments raised and were made anew"),
    _training("env_runners", "processes", "sampling processes at work"),
    _training("env_runner_losses", "losses", "how often one was lost since the start or the resume"),
    _training("env_runner_restarts", "restarts", "how often one came back since then"),
    _training("custom/<name>", "", "an info over an episode (above), mean of the agents that report it and of 100 "
              "episodes"),
    _training("custom/<agent>/<name>", "", "the same of one agent"),
    _training("validation/episode_return_mean", "reward", "return without exploration, mean of the validation "
              "episodes"),
    _training("validation/<name>", "", "an info over those episodes, mean of the agents; in iterations that validate"),
    _training("validation/<agent>/<name>", "", "the same of one agent"),
)  # fmt: skip
#: Of these, RLlib's own names of what its learners report; the second only where a replay buffer is learned from.
LEARNER_METRICS, REPLAY_METRICS = (
    {q.name: q.theirs.removeprefix(_LEARNERS) for q in TRAINING if q.owner == "policy" and bool(q.where) == replayed}
    for replayed in (False, True)
)
RUNNER_METRICS = tuple(q.name for q in TRAINING if q.theirs.startswith("env_runners/"))

_OF_STEP = {quantity.name: quantity for quantity in STEP}
#: Columns of an evaluation, one row for each policy and day; what a step tells too is the same number over the day.
EVALUATION = (
    Quantity("policy", "text", "who played", "evaluation"),
    _OF_STEP["day"],
    Quantity("date", "date", "that day's", "evaluation"),
    Quantity("hours", "h", "time played", "evaluation", "sum"),
    Quantity("finished", "true or false", "whether it was played to the end without divergence", "evaluation", "last"),
    Quantity("reward", "reward", "sum over the episode, mean over agents", "evaluation", "sum"),
    Quantity("reward:<agent>", "reward", "that of one agent", "evaluation", "sum"),
    _OF_STEP["cost_usd"],
    *REWARD_TERMS,
    Quantity("violation_node_hours", "node-h", "nodes outside the band, summed over time", "evaluation", "sum",
             summarised="per_day"),
    *(Quantity(f"violation_node_hours{suffix}", "node-h", f"nodes more than {level:g} pu outside the band, summed over "
               "time", "evaluation", "sum", summarised="per_day") for level, suffix in _LEVELS.items()),
    Quantity("violation_share", "0 to 1", "part of all nodes and steps outside the band", "evaluation",
             summarised="mean"),
    Quantity("violation_max_pu", "pu", "farthest that a node came outside the band", "evaluation", "max",
             summarised="max"),
    _OF_STEP["worst_node"],
    Quantity("v_min_pu", "pu", "lowest voltage of any node", "evaluation", "min", summarised="min"),
    Quantity("v_max_pu", "pu", "highest voltage of any node", "evaluation", "max", summarised="max"),
    Quantity("overload_branch_hours", "branch-h", "branches above their normal rating, summed over time", "evaluation",
             "sum", summarised="per_day"),
    Quantity("loading_max_pu", "pu", "highest loading of any branch", "evaluation", "max", summarised="max"),
    Quantity("import_kwh", "kWh", "energy from the source, exports subtracted", "evaluation", "sum",
             summarised="per_day"),
    Quantity("import_peak_kw", "kW", "its highest step", "evaluation", "max", summarised="mean"),
    Quantity("unbalance_max_pu", "pu", "highest negative over positive sequence voltage of a three-phase bus",
             "evaluation", "max", summarised="max"),
    Quantity("storage_cycles", "cycles", "equivalent full cycles, mean over batteries", "evaluation", "last",
             summarised="per_day"),
    _OF_STEP["operations"],
    Quantity("converged_share", "0 to 1", "part of the steps whose power flow converged", "evaluation",
             summarised="mean"),
    Quantity("projection_kwh", "kWh", "how far setpoints were moved to be feasible, summed over devices and time",
             "evaluation", "sum", summarised="per_day"),
    Quantity("projection_kvarh", "kvarh", "the same of reactive power", "evaluation", "sum", summarised="per_day"),
    _OF_STEP["handed_back"],
    Quantity("handed_back:<device>", "steps", "steps in which that device was set to what the feeder's own controls "
             "have it do and not to what its actions say", "evaluation", "sum", where=_FALLBACK),
)  # fmt: skip


def _recorded(owner: Owner, name: str, unit: str, meaning: str, where: str = "") -> Quantity:
    return Quantity(name, unit, meaning, owner, where=where)


#: What a recorded day holds of each step besides rewards and infos, by whose it is; powers are into the grid.
RECORDED = (
    _recorded("node", "v_pu", "pu", "voltage"),
    _recorded("node", "energised", "0 or 1", "whether a source feeds it"),
    _recorded("bus", "sequence_unbalance_pu", "pu", "negative over positive sequence voltage (IEC 61000-4-30)",
              "of buses with three phases"),
    _recorded("bus", "line_unbalance_pu", "pu", "farthest that a line-to-line voltage is from the mean of the three, "
              "over that mean (NEMA MG 1)", "of buses with three phases"),
    _recorded("branch", "p_kw", "kW", "power into its first terminal"),
    _recorded("branch", "q_kvar", "kvar", "the same for reactive power"),
    _recorded("branch", "loading_pu", "pu", "highest phase current over the normal rating, 0 without one"),
    _recorded("branch", "closed", "0 or 1", "whether it connects its ends; of a capacitor, whether any step is on"),
    _recorded("switchgear", "position", "", "tap from neutral, or steps on, whoever moves them"),
    _recorded("switchgear", "moved", "positions", "positions moved in the step"),
    _recorded("device", "asked_p_kw", "kW", "power that was asked of it"),
    _recorded("device", "asked_q_kvar", "kvar", "the same for reactive power"),
    _recorded("device", "set_p_kw", "kW", "power that it was set to, within its limits"),
    _recorded("device", "set_q_kvar", "kvar", "the same for reactive power"),
    _recorded("device", "p_kw", "kW", "power that it delivered"),
    _recorded("device", "q_kvar", "kvar", "the same for reactive power"),
    _recorded("device", "asked_position", "", "tap, steps on, or 0 open and 1 closed, that was asked of it"),
    _recorded("device", "position", "", "the one it was set to, within its limits"),
    _recorded("device", "handed_back", "0 or 1", "whether it was set to what the feeder's own controls have it do and "
              "not to what its actions say", _FALLBACK),
    _recorded("device", "cycles", "cycles", "equivalent full cycles since reset", "of storage"),
    _recorded("device", "<state>", "", "what else an agent may see of it, such as `soc`; see [Devices](devices.md)"),
    _recorded("device", "<count>", "", "what it counted in the step: moves, wear, sun not used, energy charged and "
              "discharged, by the names of reward terms and infos"),
    _recorded("agent", "reward", "reward", "reward of the step"),
    _recorded("network", "source_q_kvar", "kvar", "reactive power imported from the transmission side"),
    _recorded("network", "demand_kw", "kW", "demand of all loads by the profiles"),
    _recorded("network", "demand_kvar", "kvar", "the same for reactive power"),
    _recorded("network", "sun_pu", "pu", "what the sun offers, over the panels' rating"),
    _recorded("action", "action", "-1 to 1, or position", "what was decided, as the environment takes it"),
    _recorded("action", "asked", "", "the same in the device's own unit"),
    _recorded("action", "set", "", "what the device was set to in that unit, where it is a power or a position"),
    _recorded("channel", "observed", "-1 to 1", "what an agent saw before it decided, scaled"),
)  # fmt: skip

_EVALUATED = {quantity.name: quantity for quantity in EVALUATION}


def _study(name: str, unit: str, meaning: str) -> Quantity:
    return Quantity(name, unit, meaning, "evaluation", "sum")


#: Ranges of ANSI C84.1-2020 for service voltage at 600 V and less, on 120 V [pu].
ANSI_RANGES = {"A": (0.95, 1.05), "B": (110.0 / 120.0, 127.0 / 120.0)}
#: What reports and studies say of a day besides the columns of an evaluation.
STUDY = (
    _study("range_a_node_hours", "node-h", "nodes outside range A of ANSI C84.1, 0.95 to 1.05 pu, summed over time"),
    _study("range_b_node_hours", "node-h", "nodes outside its range B, 0.9167 to 1.0583 pu, summed over time"),
    _study("low_a_node_hours", "node-h", "those below range A"),
    _study("high_a_node_hours", "node-h", "those above range A"),
    Quantity("longest_a_h", "h", "longest time that any node stayed outside range A", "evaluation", "max"),
    _study("unbalance_hours", "h", "time with a bus of more than 3 % voltage unbalance"),
    _study("tap_moves", "moves", "taps moved by regulators and transformers, whoever moves them"),
    _study("bank_moves", "moves", "steps of capacitor banks switched, whoever switches them"),
    _study("battery_kwh", "kWh", "energy charged and discharged by batteries"),
)  # fmt: skip
#: Measures that a policy is compared by, day by day; of each less is better.
MEASURES = (
    *(quantity for quantity in STUDY if quantity.name not in ("low_a_node_hours", "high_a_node_hours", "battery_kwh")),
    *(_EVALUATED[name] for name in ("overload_branch_hours", "losses_kwh", "import_kwh", "import_peak_kw", "cost_usd",
                                    "curtailed_kwh", "unserved_kwh", "storage_cycles")),
)  # fmt: skip

#: Every number by its name.
QUANTITIES = {quantity.name: quantity for quantity in (*STEP, *TRAINING, *EVALUATION, *STUDY)}


def over_episode(name: str) -> Adding:
    """Tell what the steps' infos of a name come to over an episode: as the table says.

    A name that is a user's own goes by its ending: money and energy (``..._usd``, ``..._kwh``, ``..._cost``) and counts
    (``...violations``, ``...overloads``, ``...operations``, ``...events``, ``...failures``, ``...count``) add up,
    ``..._cycles`` is taken at the last step, prices (``..._per_...``) and all else are averaged.
    """
    if name in _OF_STEP:
        return _OF_STEP[name].daily
    if name.rsplit("_", 1)[-1] == "cycles":
        return "last"
    counts = ("violations", "overloads", "operations", "events", "failures", "count", "cost")
    adds_up = name.endswith(("_usd", "_kwh")) or name.rsplit("_", 1)[-1] in counts
    return "sum" if adds_up and "_per_" not in name else "mean"
