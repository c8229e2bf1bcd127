"""Rules of the owners of secrets: who may run what, and what is no prediction although it looks like one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from mpc.errors import NotPermitted, ProgramError
from mpc.operation import Input
from mpc.program import Expression, Program
from nn import Description, Linear, Model, Sequential, Sigmoid
from nn.architecture import local_weights
from parties.stored import policy
from parties.stored.policy import ANY, EVERYONE, PREDICT, Policy
from protocols.trace.secret_tensor import SecretTensor, program_of

STORE = "a" * 32
OTHER = "b" * 32
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
    return SecretTensor(Expression(Input(shape, bits, low, 1.0)))


def program(*results: SecretTensor) -> Program:
    return program_of(results)


def prediction(model: Description, x: SecretTensor | None = None, store: str = STORE) -> SecretTensor:
    return model.forward(own_input() if x is None else x, model.stored(store))


def rules(model: Description, grants: Mapping[str, frozenset[str]]) -> Policy:
    return Policy("net", "company", STORE, model.encode(), grants)


def refused(policy: Policy, what: Program, client: str = "clinic") -> str:
    with pytest.raises(NotPermitted) as error:
        policy.check(what, client)
    return str(error.value)


def test_by_default_the_owner_alone_may_use_it(model: Description) -> None:
    nobody = rules(model, {})
    for what in (program(prediction(model)), program(model.stored(STORE)["first.weight"])):
        nobody.check(what, "company")
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
    rules(model, {"clinic": frozenset({PREDICT})}).check(program(prediction(model, x)), "clinic")


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
    predicting.check(fine, "clinic")
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
    usual = Policy("net", "company", STORE, made.description.encode(), {"clinic": frozenset({PREDICT})})
    usual.check(program(prediction(made.description)), "clinic")
    unsettled = Description(made.architecture, made.description.tensors)
    assert not unsettled.architecture.is_settled
    left_open = Policy("net", "company", STORE, unsettled.encode(), {"clinic": frozenset({PREDICT})})
    refused(left_open, program(prediction(made.description)))


def test_a_program_that_was_looked_at_is_allowed_by_its_digest(model: Description) -> None:
    looked_at = program(prediction(model) * 2.0)
    one = rules(model, {"clinic": frozenset({looked_at.digest})})
    one.check(looked_at, "clinic")
    assert "may not run this program on 'net'" in refused(one, program(prediction(model) * 3.0))
    assert "may not use 'net'" in refused(one, looked_at, client="other")


def test_any_program_and_every_client(model: Description) -> None:
    weight = program(model.stored(STORE)["first.weight"])
    rules(model, {"clinic": frozenset({ANY})}).check(weight, "clinic")
    everyone = rules(model, {EVERYONE: frozenset({PREDICT}), "clinic": frozenset({weight.digest})})
    everyone.check(program(prediction(model)), "clinic")
    everyone.check(weight, "clinic")
    refused(everyone, weight, client="other")


def test_all_owners_of_what_a_program_uses_must_have_allowed_it(model: Description) -> None:
    both = program(model.stored(STORE)["last.bias"] + model.stored(OTHER)["last.bias"])
    mine = rules(model, {})
    theirs = Policy("other", "university", OTHER, model.encode(), {})
    found = {STORE: mine, OTHER: theirs}
    with pytest.raises(NotPermitted, match="university has to allow"):
        policy.check(both, "company", found.get)
    found[OTHER] = Policy("other", "university", OTHER, model.encode(), {"company": frozenset({both.digest})})
    policy.check(both, "company", found.get)
    assert both.slots == (STORE, OTHER)


def test_a_version_without_known_rules_is_refused_whoever_asks(model: Description) -> None:
    """One that is being uploaded has none yet, and may be in use by the time its tensors are looked up."""
    mine = rules(model, {"clinic": frozenset({ANY})})
    both = program(model.stored(STORE)["last.bias"] + model.stored(OTHER)["last.bias"])
    for what in (program(model.stored(OTHER)["last.bias"]), both):
        for client in ("company", "clinic"):
            with pytest.raises(ProgramError, match="not in use here"):
                policy.check(what, client, {STORE: mine}.get)


def test_what_is_allowed_replaces_what_was(model: Description) -> None:
    first = policy.merged({}, "clinic", [PREDICT])
    both = policy.merged(first, "other", [ANY])
    assert both == {"clinic": frozenset({PREDICT}), "other": frozenset({ANY})}
    assert policy.merged(both, "clinic", []) == {"other": frozenset({ANY})}


def test_rules_are_two_words_or_a_digest() -> None:
    assert all(map(policy.is_rule, (PREDICT, ANY, "0" * 64)))
    assert not any(map(policy.is_rule, ("", "all", "0" * 63, "0" * 65, "G" * 64, "0" * 64 + "\n")))
