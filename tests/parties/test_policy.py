"""Rules of the owners of secrets: who may run what, and what is no prediction although it looks like one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from mpc.errors import NotPermitted, ProgramError, ProtocolViolation
from mpc.operation import Input, Stored
from mpc.program import Program
from nn import Description, Linear, Model, Sequential, Sigmoid
from nn.architecture import local_weights
from nn.interface import ArrayInput, Interface
from parties.messages.bindings import OWNER, Binding, BoundProgram
from parties.messages.rules import EVERYONE, Rule, RuleSet, replaced
from parties.stored import policy
from parties.stored.data_set import DataSet
from parties.stored.policy import ANY, PREDICT, InUse, Policy
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import SecretTensor, graph_of, leaf

from .rules_given import NO_RULE, grants_of, identity

STORE = "company/net"
OTHER = "university/other"
VERSION, LATER = "a" * 32, "b" * 32
WEIGHTS = {
    "first.weight": np.full((4, 3), 0.5),
    "first.bias": np.zeros(4),
    "last.weight": np.full((2, 4), 0.25),
    "last.bias": np.ones(2),
}
FIRST = Linear(3, 4)


@pytest.fixture(scope="module")
def model() -> Description:
    layers = Sequential({"first": Linear(3, 4), "act": Sigmoid(), "last": Linear(4, 2)})
    return Model(layers, WEIGHTS).description


def own_input(shape: tuple[int, ...] = (1, 3), low: float = -1.0, bits: int = 16) -> SecretTensor:
    return leaf(Input(shape, bits, low, 1.0))


def program(*results: SecretTensor) -> Program:
    return plan(graph_of(results), checked=True)


def prediction(model: Description, x: SecretTensor | None = None, store: str = STORE) -> SecretTensor:
    return model.forward(own_input() if x is None else x, model.stored(store))


def rules(model: Description, programs: Mapping[str, frozenset[str]]) -> Policy:
    return Policy("net", "company", VERSION, model.encode(), grants_of(programs))


def let(policy: Policy, what: Program, client: str, word: str) -> None:
    """By the rule for a program."""
    policy.check(what, client, identity(policy, client, word))


def refused(policy: Policy, what: Program, client: str = "clinic") -> str:
    """By whatever rule the client says that it may."""
    said = set()
    for rule in {OWNER, what.digest, NO_RULE, *policy.of(client)}:
        with pytest.raises(NotPermitted) as error:
            policy.check(what, client, rule)
        said.add(str(error.value))
    (sentence,) = said
    return sentence


def found(*policies: Policy) -> Callable[[str], InUse[str] | None]:
    """Of each, a server holds its version's id."""
    return {policy.slot: InUse(policy, policy.version) for policy in policies}.get


def bound(what: Program, *rules: str, version: str = VERSION, client: str = "clinic") -> BoundProgram:
    bindings = tuple(Binding(s, version, rule) for s, rule in zip(what.slots, rules, strict=True))
    return BoundProgram(what, bindings, client)


def held(bound: BoundProgram, client: str, *policies: Policy) -> Mapping[str, str]:
    return policy.check(bound, client, found(*policies)).held


def test_by_default_the_owner_alone_may_use_it(model: Description) -> None:
    nobody = rules(model, {})
    for what in (program(prediction(model)), program(model.stored(STORE)["first.weight"])):
        nobody.check(what, "company", OWNER)
        assert "its owner company has to allow it" in refused(nobody, what)
    assert nobody.sees("company")
    assert not nobody.sees("clinic")


INPUTS = {
    "one": own_input(),
    "batch": own_input((7, 3)),
    "range": own_input(low=-0.5),
    "bits": own_input(bits=12),
    "coarse": own_input().precise(8),
    "fine": own_input().precise(20),
}


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_whoever_may_predict_may_predict_on_any_input(model: Description, x: SecretTensor) -> None:
    let(rules(model, {"clinic": frozenset({PREDICT})}), program(prediction(model, x)), "clinic", PREDICT)


MORE_THAN_A_PREDICTION: dict[str, Callable[[Description], Program]] = {
    "a weight": lambda m: program(m.stored(STORE)["first.weight"]),
    "a weight beside the result": lambda m: program(prediction(m), m.stored(STORE)["last.bias"]),
    "the result twice": lambda m: program(*([prediction(m)] * 2)),
    "a value on the way": lambda m: program(
        FIRST.forward(own_input(), weights=local_weights("first", m.stored(STORE)))
    ),
    "more computed from the result": lambda m: program(prediction(m) * 2.0),
    "less subtracted from the result": lambda m: program(prediction(m) - m.stored(STORE)["last.bias"]),
    "two inputs": lambda m: program(prediction(m, own_input() + own_input())),
    "an input that is computed": lambda m: program(prediction(m, own_input() * 0.5)),
    "no input": lambda m: program(m.stored(STORE)["last.bias"] * 2.0),
    "weights of another store": lambda m: program(
        m.forward(own_input(), {**m.stored(STORE), "last.bias": m.stored(OTHER)["last.bias"]})
    ),
    "an input of the wrong shape": lambda m: program(own_input((1, 9)).sum() + m.stored(STORE)["last.bias"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE_THAN_A_PREDICTION)
def test_what_is_not_the_prediction_is_refused(model: Description, name: str) -> None:
    predicting = rules(model, {"clinic": frozenset({PREDICT})})
    assert "may only have 'net' predict" in refused(predicting, MORE_THAN_A_PREDICTION[name](model))


@pytest.mark.parametrize("ends", [(-1.0, 2.0), (-1.001, 1.0), (-64.0, 64.0), (5.0, 6.0)])
def test_nobody_predicts_beyond_the_range_that_the_model_says(model: Description, ends: tuple[float, float]) -> None:
    """What is beyond it tells of weights, by periodic activations, what no prediction is to tell."""
    what = program(prediction(model, leaf(Input((1, 3), 16, *ends))))
    with pytest.raises(NotPermitted, match=r"predict for inputs in \[-1, 1\]"):
        let(rules(model, {"clinic": frozenset({PREDICT})}), what, "clinic", PREDICT)
    wide = Description(model.architecture, model.tensors, Interface(ArrayInput((3,), -64.0, 64.0)))
    let(rules(wide, {"clinic": frozenset({PREDICT})}), what, "clinic", PREDICT)
    let(rules(model, {"clinic": frozenset({ANY})}), what, "clinic", ANY)


def unchecked(*results: SecretTensor) -> Program:
    return plan(graph_of(results))


def test_what_meets_another_s_secret_is_checked_whatever_the_rule(model: Description) -> None:
    """Nobody but the owner leaves out the check: by no rule, whether it is the prediction or any other program."""
    data = Policy("d", "clinic", VERSION, DataSet({"x": np.zeros((1, 3))}, low=-1, high=1).describe())
    x = leaf(Stored((1, 3), 16, -1.0, 1.0, data.slot, "x"))
    for y, slots in ((prediction(model), 1), (prediction(model) * 2.0, 1), (prediction(model, x), 2)):
        what = unchecked(y)
        for word in (PREDICT, what.digest, ANY):
            mine = rules(model, {"clinic": frozenset({word})})
            said = {data.slot: OWNER, mine.slot: identity(mine, "clinic", word)}
            with pytest.raises(NotPermitted):
                held(bound(what, *(said[slot] for slot in what.slots)), "clinic", mine, data)
        checked, mine = program(y), rules(model, {"clinic": frozenset({ANY})})
        said = {data.slot: OWNER, mine.slot: identity(mine, "clinic", ANY)}
        assert len(held(bound(checked, *(said[slot] for slot in checked.slots)), "clinic", mine, data)) == slots
    # Of its own alone, its owner makes what it likes.
    assert held(bound(unchecked(prediction(model)), OWNER, client="company"), "company", rules(model, {}))


def test_what_a_prediction_would_be_is_worked_out_once(model: Description, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program says its precision, and one that says another than it has is no prediction."""
    made: list[int] = []
    forward = Description.forward

    def counted(self: Description, x: SecretTensor, stored: Mapping[str, SecretTensor]) -> SecretTensor:
        made.append(x.precision or 0)
        return forward(self, x, stored)

    fine = program(prediction(model, own_input((5, 3)).precise(20)))
    monkeypatch.setattr(Description, "forward", counted)
    predicting = rules(model, {"clinic": frozenset({PREDICT})})
    refused(predicting, Program(fine.nodes, fine.outputs, 21))
    refused(predicting, Program(fine.nodes, fine.outputs, 50))
    let(predicting, fine, "clinic", PREDICT)
    assert made == [21, 50, 20]


def test_a_description_with_other_layers_is_another_prediction(model: Description) -> None:
    layers = Sequential({"first": Linear(3, 4), "last": Linear(4, 2)})
    linear = Model(layers, WEIGHTS).description
    assert set(linear.tensors) == set(model.tensors)
    refused(rules(model, {"clinic": frozenset({PREDICT})}), program(prediction(linear)))


def test_what_is_left_to_find_out_is_not_found_out_here(model: Description) -> None:
    """A fit takes long to make, and has other digits on another machine: it comes with the description."""
    layers = Sequential({"first": Linear(3, 4), "act": Sigmoid(interval=(-4.0, 4.0)), "last": Linear(4, 2)})
    made = Model(layers, WEIGHTS)
    assert made.description.architecture.is_settled
    usual = rules(made.description, {"clinic": frozenset({PREDICT})})
    let(usual, program(prediction(made.description)), "clinic", PREDICT)
    unsettled = Description(made.architecture, made.description.tensors)
    assert not unsettled.architecture.is_settled
    left_open = rules(unsettled, {"clinic": frozenset({PREDICT})})
    refused(left_open, program(prediction(made.description)))


def test_a_program_that_was_looked_at_is_allowed_by_its_digest(model: Description) -> None:
    looked_at = program(prediction(model) * 2.0)
    one = rules(model, {"clinic": frozenset({looked_at.digest})})
    let(one, looked_at, "clinic", looked_at.digest)
    for word in (looked_at.digest, PREDICT, ANY):
        with pytest.raises(NotPermitted):
            one.check(looked_at, "clinic", word)
    assert "may not run this program on 'net'" in refused(one, program(prediction(model) * 3.0))
    assert "may not use 'net'" in refused(one, looked_at, client="other")


def test_any_program_and_every_client(model: Description) -> None:
    weight = program(model.stored(STORE)["first.weight"])
    let(rules(model, {"clinic": frozenset({ANY})}), weight, "clinic", ANY)
    everyone = rules(model, {EVERYONE: frozenset({PREDICT}), "clinic": frozenset({weight.digest})})
    let(everyone, program(prediction(model)), "clinic", PREDICT)
    let(everyone, weight, "clinic", weight.digest)
    refused(everyone, weight, client="other")
    # The rule of another client is not one's own.
    with pytest.raises(NotPermitted):
        everyone.check(weight, "other", identity(everyone, "clinic", weight.digest))


LIMITS = ({}, {"runs": 1}, {"runs": 2}, {"per_day": 1}, {"per_client": 1}, {"runs": 1, "per_day": 1})


def test_a_rule_is_the_very_rule(model: Description) -> None:
    """Whose it is, of what, for whom, for which program, how often, and since when: all that its digest fixes."""
    sets = [
        RuleSet(owner, name, 9, (Rule(client, what, number, **limits),))
        for owner, name in (("company", "net"), ("company", "other"), ("university", "net"))
        for client in ("clinic", EVERYONE)
        for what in (PREDICT, ANY)
        for number in (1, 2)
        for limits in LIMITS
    ]
    identities = [identity for one in sets for of in one.by_client().values() for identity in of]
    assert len(set(identities)) == len(sets) == 3 * 2 * 2 * 2 * len(LIMITS)
    assert [RuleSet.decode(one.encode()) for one in sets] == sets
    # Not of the number of the set that it is in: what others may does not make another rule of it.
    (mine,) = RuleSet("company", "net", 9, sets[0].rules).by_client()["clinic"]
    assert mine in RuleSet("company", "net", 10, (*sets[0].rules, Rule("other", ANY, 10))).by_client()["clinic"]
    # Another limit than the one that is in force is no rule.
    what = program(prediction(model))
    for limits in LIMITS:
        held = Policy("net", "company", VERSION, model.encode(), grants_of({"clinic": {PREDICT}}, **limits))
        for others in LIMITS:
            other = Policy("net", "company", VERSION, model.encode(), grants_of({"clinic": {PREDICT}}, **others))
            said = bound(what, identity(other, "clinic", PREDICT))
            if limits == others:
                assert len(policy.check(said, "clinic", found(held)).uses) == bool(limits)
            else:
                with pytest.raises(NotPermitted):
                    policy.check(said, "clinic", found(held))


def test_all_owners_of_what_a_program_uses_must_have_allowed_it(model: Description) -> None:
    both = program(model.stored(STORE)["last.bias"] + model.stored(OTHER)["last.bias"])
    assert both.slots == (STORE, OTHER)
    mine = rules(model, {})
    theirs = Policy("other", "university", VERSION, model.encode(), {})
    with pytest.raises(NotPermitted, match="university has to allow"):
        policy.check(bound(both, OWNER, NO_RULE), "company", found(mine, theirs))
    grants = grants_of({"company": {both.digest}}, owner="university", name="other")
    theirs = Policy("other", "university", VERSION, model.encode(), grants)
    rule = identity(theirs, "company", both.digest)
    for slot_rules in ((OWNER, OWNER), (rule, rule), (OWNER, both.digest), (OWNER, NO_RULE)):
        with pytest.raises(NotPermitted):
            policy.check(bound(both, *slot_rules), "company", found(mine, theirs))
    assert held(bound(both, OWNER, rule), "company", mine, theirs) == {STORE: VERSION, OTHER: VERSION}


def test_a_version_without_known_rules_is_refused_whoever_asks(model: Description) -> None:
    """One that is being uploaded has none yet, and may be in use by the time its tensors are looked up."""
    mine = rules(model, {"clinic": frozenset({ANY})})
    both = program(model.stored(STORE)["last.bias"] + model.stored(OTHER)["last.bias"])
    for client, rule in (("company", OWNER), ("clinic", identity(mine, "clinic", ANY))):
        for what in (bound(program(model.stored(OTHER)["last.bias"]), rule), bound(both, rule, rule)):
            for check in (policy.check, policy.check_still):
                with pytest.raises(ProgramError, match="not in use here"):
                    check(what, client, found(mine))
        one = program(model.stored(STORE)["last.bias"])
        for check in (policy.check, policy.check_still):
            with pytest.raises(ProgramError, match="not in use here"):
                check(bound(one, rule, version=LATER), client, found(mine))
        assert held(bound(one, rule), client, mine) == {STORE: VERSION}


def test_what_was_checked_holds_as_long_as_version_and_rule_do(model: Description) -> None:
    what = program(prediction(model))
    mine = rules(model, {"clinic": frozenset({PREDICT})})
    said = bound(what, identity(mine, "clinic", PREDICT))
    wider = grants_of({"clinic": {PREDICT}, "other": {ANY}})
    policy.check_still(said, "clinic", found(mine))
    policy.check_still(said, "clinic", found(Policy("net", "company", VERSION, model.encode(), wider)))
    policy.check_still(bound(what, OWNER), "company", found(mine))
    for now in ({}, {"other": {PREDICT}}, {"clinic": {ANY}}):
        with pytest.raises(NotPermitted):
            policy.check_still(said, "clinic", found(Policy("net", "company", VERSION, model.encode(), grants_of(now))))


def test_a_rule_by_digest_outlasts_a_new_version_of_the_same_types(model: Description) -> None:
    looked_at = program(prediction(model) * 2.0)
    grants = grants_of({"clinic": {looked_at.digest}})
    later = Policy("net", "company", LATER, model.encode(), grants)
    rule = identity(later, "clinic", looked_at.digest)
    assert held(bound(looked_at, rule, version=LATER), "clinic", later) == {STORE: LATER}
    # Of other types it would be another computation, although nothing in the shapes tells.
    wider = Model(
        Sequential({"first": Linear(3, 4), "act": Sigmoid(), "last": Linear(4, 2)}),
        {**WEIGHTS, "first.weight": np.full((4, 3), 2.5)},
    ).description
    assert {n: t.shape for n, t in wider.tensors.items()} == {n: t.shape for n, t in model.tensors.items()}
    other = Policy("net", "company", LATER, wider.encode(), grants)
    for client, by in (("clinic", rule), ("company", OWNER)):
        with pytest.raises(ProgramError, match=r"reads 'first\.weight' of 'net' as another than it is"):
            policy.check(bound(looked_at, by, version=LATER), client, found(other))


def test_nothing_else_stands_in_a_slot(model: Description) -> None:
    """An accomplice has secrets of its own, of the same types; a rule for one of the company's is no rule for them."""
    looked_at = program(model.stored(STORE)["last.bias"] * model.stored(OTHER)["last.bias"])
    mine = rules(model, {"clinic": frozenset({looked_at.digest})})
    grants = grants_of({"clinic": {looked_at.digest}}, owner="university", name="other")
    theirs = Policy("other", "university", VERSION, model.encode(), grants)
    first, second = (identity(of, "clinic", looked_at.digest) for of in (mine, theirs))
    policy.check(bound(looked_at, first, second), "clinic", found(mine, theirs))
    with pytest.raises(NotPermitted):
        policy.check(bound(looked_at, second, first), "clinic", found(mine, theirs))
    # Its own version in the university's slot.
    own = Policy("own", "clinic", LATER, model.encode(), {})
    forged = (Binding(STORE, VERSION, first), Binding(OTHER, LATER, OWNER))
    with pytest.raises(ProgramError, match="not in use here"):
        policy.check(BoundProgram(looked_at, forged, "clinic"), "clinic", found(mine, theirs, own))
    # The name, which is its own as well.
    taken = Policy("other", "clinic", LATER, model.encode(), {})
    with pytest.raises(ProgramError, match="not in use here"):
        policy.check(
            BoundProgram(looked_at, forged, "clinic"), "clinic", {STORE: InUse(mine, ""), OTHER: InUse(taken, "")}.get
        )
    # A slot of its own, the same program otherwise; or the two the other way round.
    for x, y in ((STORE, "clinic/own"), (OTHER, STORE)):
        other = program(model.stored(x)["last.bias"] * model.stored(y)["last.bias"])
        assert other.digest != looked_at.digest
        refused(mine, other)


def test_every_slot_is_bound_once_and_nothing_else(model: Description) -> None:
    what = program(model.stored(STORE)["last.bias"] + model.stored(OTHER)["last.bias"])
    both = tuple(Binding(slot, VERSION, OWNER) for slot in what.slots)
    theirs = Policy("other", "company", VERSION, model.encode(), {})
    for bindings in ((), both[:1], both[::-1], (*both, both[0]), (*both, Binding("company/x", VERSION, OWNER))):
        with pytest.raises(ProtocolViolation, match="bound other slots"):
            policy.check(BoundProgram(what, bindings, "company"), "company", found(rules(model, {}), theirs))


def test_what_members_compare(model: Description) -> None:
    what = program(model.stored(STORE)["last.bias"] + model.stored(OTHER)["last.bias"])
    first = bound(what, OWNER, NO_RULE)
    rule, later = bound(what, "1" * 64, NO_RULE), bound(what, OWNER, NO_RULE, version=LATER)
    kept = [BoundProgram(what, first.bindings, "clinic", keep) for keep in ("x", "y")]
    assert len({x.bindings_digest for x in (first, rule, later, *kept)}) == 5
    # Stock is dealt for versions, whoever uses it by whatever rule, and whatever becomes of the result.
    assert first.digest == rule.digest == kept[0].digest != later.digest
    assert BoundProgram.decode(first.encode()).digest == first.digest
    free = program(own_input() * 2.0)
    digests = {BoundProgram(free, (), client).digest for client in ("clinic", "company")}
    assert len(digests) == 2, "what one client has ordered is no other's"
    assert free.digest not in digests
    for rubbish in (b"", b"\x93", first.encode()[:-1], what.encode()):
        with pytest.raises(ProgramError):
            BoundProgram.decode(rubbish)


def test_what_is_allowed_replaces_what_was() -> None:
    first = replaced((), "clinic", [Rule("clinic", PREDICT, 1)])
    both = replaced(first, "other", [Rule("other", ANY, 2)])
    assert both == (Rule("clinic", PREDICT, 1), Rule("other", ANY, 2))
    assert replaced(both, "clinic", []) == (Rule("other", ANY, 2),)
    assert replaced(both, "other", [Rule("other", PREDICT, 3)])[1:] == (Rule("other", PREDICT, 3),)


def test_rules_are_two_words_or_a_digest() -> None:
    assert all(map(policy.is_rule, (PREDICT, ANY, "0" * 64)))
    assert not any(map(policy.is_rule, ("", "all", "0" * 63, "0" * 65, "G" * 64, "0" * 64 + "\n")))
