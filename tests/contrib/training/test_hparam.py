"""`HParams`: how hyperparameters are made, set, asked for, written and read."""

import copy
import json
import pickle

import numpy as np
import pytest

from paramserve.contrib.training import HParams
from paramserve.protos.hparam_pb2 import HParamDef


def make():
    return HParams(layers=[64, 32], rate=0.1, steps=100, name="adam", sync=True)


# Made


def test_values_are_attributes_in_order():
    hparams = make()
    assert hparams.rate == 0.1
    assert list(hparams.values().items()) == [
        ("layers", [64, 32]),
        ("rate", 0.1),
        ("steps", 100),
        ("name", "adam"),
        ("sync", True),
    ]
    assert "rate" in hparams
    assert "decay" not in hparams
    assert HParams().values() == {}


def test_they_are_printed_in_order_or_by_name():
    hparams = HParams(b=2.0, a=[1, 2], c="x")
    assert str(hparams) == "b=2.0,a=[1, 2],c=x"
    assert repr(hparams) == "HParams([('a', [1, 2]), ('b', 2.0), ('c', 'x')])"
    # The printed form can be parsed.
    assert HParams(b=0.0, a=[0], c="").parse(str(hparams)).values() == hparams.values()


@pytest.mark.parametrize("name", ["values", "parse", "rate"])
def test_a_name_in_use_is_reserved(name):
    with pytest.raises(ValueError, match=f"reserved: '{name}'"):
        make().add_hparam(name, 1)


@pytest.mark.parametrize("empty", [[], ()])
def test_an_empty_list_tells_no_type(empty):
    with pytest.raises(ValueError, match="'x' cannot be empty"):
        HParams(x=empty)


def test_removed_names_are_free_again():
    hparams = HParams(a=1, b=2.0)
    hparams.del_hparam("a")
    hparams.del_hparam("a")
    assert "a" not in hparams
    assert not hasattr(hparams, "a")
    hparams.add_hparam("a", "now a text")
    assert hparams.set_hparam("a", "and another") is None
    assert hparams.a == "and another"


def test_methods_cannot_be_removed():
    hparams = make()
    hparams.del_hparam("values")
    assert hparams.values()["steps"] == 100


def test_names_may_have_dots():
    hparams = HParams()
    hparams.add_hparam("a.b", 0.0)
    hparams.parse("a.b=1")
    assert getattr(hparams, "a.b") == 1.0


def test_a_model_structure_is_kept_beside_them():
    hparams = HParams(model_structure="two towers", a=1)
    assert hparams.get_model_structure() == "two towers"
    hparams.set_model_structure({"towers": 3})
    assert hparams.get_model_structure() == {"towers": 3}
    assert hparams.values() == {"a": 1}


def test_copies_are_independent():
    hparams = make()
    for other in (copy.deepcopy(hparams), pickle.loads(pickle.dumps(hparams))):
        other.parse("steps=7,layers[0]=1")
        assert (other.steps, other.layers) == (7, [1, 32])
    assert (hparams.steps, hparams.layers) == (100, [64, 32])


# Set


def test_set_takes_values_of_the_type():
    hparams = make()
    hparams.set_hparam("steps", 200)
    hparams.set_hparam("name", "sgd")
    hparams.set_hparam("sync", False)
    hparams.set_hparam("layers", (16,))
    assert (hparams.steps, hparams.name, hparams.sync) == (200, "sgd", False)
    assert hparams.layers == [16]


def test_integers_become_floats():
    hparams = HParams(rate=0.1, rates=[0.1])
    hparams.set_hparam("rate", 1)
    hparams.set_hparam("rates", [1, 2.5])
    assert (type(hparams.rate), hparams.rate) == (float, 1.0)
    assert [type(rate) for rate in hparams.rates] == [float, float]


def test_numpys_numbers_are_numbers():
    hparams = HParams(steps=1, rate=0.1)
    hparams.set_hparam("steps", np.int64(3))
    hparams.set_hparam("rate", np.float32(0.5))
    assert hparams.to_json() == '{"steps": 3, "rate": 0.5}'


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 2.2),
        ("steps", "2"),
        ("steps", False),
        ("steps", None),
        ("rate", "0.1"),
        ("rate", True),
        ("rate", 1j),
        ("name", 2.2),
        ("name", None),
        ("sync", 1),
        ("sync", "true"),
        ("layers", [2, 3.3]),
        ("layers", ["2"]),
    ],
)
def test_nothing_else_is_converted(name, value):
    hparams = make()
    with pytest.raises(ValueError, match=f"Could not cast hparam '{name}'"):
        hparams.set_hparam(name, value)
    assert hparams.values() == make().values()


def test_lists_and_single_values_are_not_confused():
    with pytest.raises(ValueError, match="Must not pass a list"):
        make().set_hparam("steps", [1])
    with pytest.raises(ValueError, match="Must pass a list"):
        make().set_hparam("layers", 1)


def test_unknown_names_are_a_key_error():
    with pytest.raises(KeyError, match="'decay'; known are: layers, rate"):
        make().set_hparam("decay", 1.0)


def test_what_began_as_none_takes_anything():
    hparams = HParams(x=None)
    for value in ("1", 2.5, [1, "a"], None):
        hparams.set_hparam("x", value)
        assert hparams.x == value
    assert hparams.parse("x=text").x == "text"


def test_functions_are_values_too():
    hparams = HParams(activation=len, rate=0.1)
    hparams.set_hparam("activation", sum)
    assert hparams.activation is sum
    with pytest.raises(ValueError, match="Could not cast"):
        hparams.set_hparam("activation", 3)


def test_many_are_set_at_once_or_none():
    hparams = make()
    assert hparams.override_from_dict({"steps": 7, "layers": [1]}) is hparams
    assert hparams.set_from_map({"rate": 1}) is hparams
    assert (hparams.steps, hparams.layers, hparams.rate) == (7, [1], 1.0)
    with pytest.raises(ValueError, match="rate"):
        hparams.override_from_dict({"steps": 8, "rate": "fast"})
    assert hparams.steps == 7


# Text


def test_text_sets_them():
    hparams = make()
    assert hparams.parse("rate=1,layers=[8],name=,sync=false, steps = 5") is hparams
    assert hparams.values() == {
        "layers": [8],
        "rate": 1.0,
        "steps": 5,
        "name": "",
        "sync": False,
    }
    assert hparams.parse("layers=[]").layers == []
    assert hparams.parse("").steps == 5


def test_text_sets_elements_of_a_list():
    hparams = make()
    before = hparams.layers
    assert hparams.parse("layers[1]=5").layers == [64, 5]
    assert before == [64, 32]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decay=1", "Unknown hyperparameter"),
        ("steps=1.0", "Could not parse"),
        ("steps=[1]", "Must not pass a list"),
        ("layers=1", "Must pass a list"),
        ("layers[2]=1", r"layers\[2\] does not exist"),
        ("steps[0]=1", "'steps' is single-valued"),
        ("steps", "Malformed"),
    ],
)
def test_text_that_does_not_fit_changes_nothing(text, message):
    hparams = make()
    with pytest.raises(ValueError, match=message):
        hparams.parse(f"rate=1,{text}")
    assert hparams.values() == make().values()


# JSON


def test_json_goes_both_ways():
    text = make().parse("layers=[1,2,3]").to_json()
    assert json.loads(text)["layers"] == [1, 2, 3]
    hparams = make()
    assert hparams.parse_json(text) is hparams
    assert hparams.layers == [1, 2, 3]


def test_json_is_formatted_as_asked():
    hparams = HParams(b=2, a=1)
    assert hparams.to_json() == '{"b": 2, "a": 1}'
    assert hparams.to_json(sort_keys=True) == '{"a": 1, "b": 2}'
    assert hparams.to_json(separators=(";", "=")) == '{"b"=2;"a"=1}'
    assert HParams(a=1).to_json(indent=2) == '{\n  "a": 1\n}'


def test_json_leaves_functions_out():
    hparams = HParams(a=1, f=len, g=[len, sum], d={"x": len, "y": [1, {"z": sum}]})
    assert json.loads(hparams.to_json()) == {"a": 1, "g": [], "d": {"y": [1, {}]}}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[1]", ValueError),
        ("{", ValueError),
        ('{"decay": 1}', KeyError),
        ('{"steps": 1.5}', ValueError),
    ],
)
def test_json_that_does_not_fit_is_refused(text, error):
    with pytest.raises(error):
        make().parse_json(text)


# Asked for


def test_get_checks_its_default():
    hparams = make()
    assert hparams.get("rate") == 0.1
    assert hparams.get("rate", 3) == 0.1
    assert hparams.get("layers", [1]) == [64, 32]
    assert hparams.get("decay") is None
    assert hparams.get("decay", [1, "a"]) == [1, "a"]
    for name, default in (
        ("steps", 2.0),
        ("rate", False),
        ("name", [1]),
        ("sync", "relu"),
        ("layers", 1),
        ("layers", ["a"]),
    ):
        with pytest.raises(ValueError, match=f"{name}.*incompatible with default="):
            hparams.get(name, default)


# Protocol buffer


def test_a_protocol_buffer_goes_both_ways():
    hparams = HParams(
        i=2**40,
        f=0.1,
        s="grün",
        b=False,
        ii=[1, -2],
        ff=[0.3, 1e-7],
        ss=["a", "b"],
        bb=[True, False],
    )
    data = hparams.to_proto().SerializeToString()
    again = HParams.from_proto(HParamDef.FromString(data))
    assert again.values() == hparams.values()
    assert again.parse("i=1,ff=[2]").ff == [2.0]


def test_it_has_the_originals_form():
    hparams = HParams(i=1, f=0.5, s="a", b=True, ii=[1], ff=[0.5], ss=["a"], bb=[True])
    kinds = {name: each.WhichOneof("kind") for name, each in hparams.to_proto().hparam.items()}
    assert kinds == {
        "i": "int64_value",
        "f": "float_value",
        "s": "bytes_value",
        "b": "bool_value",
        "ii": "int64_list",
        "ff": "float_list",
        "ss": "bytes_list",
        "bb": "bool_list",
    }
    # Field 1 is a map; its key is field 1, its value field 2: a message with the kinds.
    assert HParams(i=5).to_proto().SerializeToString() == b"\x0a\x07\x0a\x01i\x12\x02\x08\x05"
    assert HParams(x=[2.0]).to_proto().SerializeToString() == (
        b"\x0a\x0d\x0a\x01x\x12\x08\x2a\x06\x0a\x04\x00\x00\x00\x40"
    )


def test_an_empty_list_keeps_its_type():
    again = HParams.from_proto(HParams(x=[1.5]).parse("x=[]").to_proto())
    assert again.x == []
    assert again.parse("x=[2]").x == [2.0]


def test_bytes_come_back_as_text():
    assert HParams.from_proto(HParams(x=b"abc").to_proto()).x == "abc"


def test_what_has_no_place_in_it_is_named():
    with pytest.raises(ValueError, match="Unsupported parameter type: 'f'"):
        HParams(f=len).to_proto()
    with pytest.raises(ValueError, match="Unsupported parameter type: 'x'"):
        HParams(x=None).to_proto()
    definition = HParamDef()
    definition.hparam["empty"].SetInParent()
    with pytest.raises(ValueError, match="'empty' of the HParamDef has no value"):
        HParams.from_proto(definition)


def test_something_else_is_no_definition():
    for given in (1, "a=1", [1, 2]):
        with pytest.raises(AssertionError, match="is no HParamDef: pass the result of to_proto"):
            HParams(hparam_def=given)


def test_a_definition_and_values_exclude_each_other():
    definition = HParams(a=1).to_proto()
    assert HParams(definition).a == 1
    with pytest.raises(ValueError, match="mutually exclusive"):
        HParams(definition, b=2)
