"""`parse_values`: which texts it reads, and which it refuses and why."""

import pytest

from paramserve.contrib.training import parse_values

TYPES = {"i": int, "f": float, "s": str, "b": bool, "other": int}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("i=12", {"i": 12}),
        ("i=-34,f=+2", {"i": -34, "f": 2.0}),
        ("f=-2.0e10", {"f": -2.0e10}),
        ("s=relu4, f = 1", {"s": "relu4", "f": 1.0}),
        ("s=,i=1,", {"s": "", "i": 1}),
        ("s=/a=b/c", {"s": "/a=b/c"}),
        ('s=2.3"', {"s": '2.3"'}),
        ("s=", {"s": ""}),
        ("i=[12,34, 56]", {"i": [12, 34, 56]}),
        ("i=[12 34]", {"i": [12, 34]}),
        ("s=[],f=[1]", {"s": [], "f": [1.0]}),
        ("s=[_12,3'4\"]", {"s": ["_12", "3'4\""]}),
        ("i[1]=10", {"i": {1: 10}}),
        ("i[0]=10, i[ 5 ] = 20", {"i": {0: 10, 5: 20}}),
        ("f[10]=1,s=x,other[2]=3", {"f": {10: 1.0}, "s": "x", "other": {2: 3}}),
        ("b[1]=true,s[2]=abc", {"b": {1: True}, "s": {2: "abc"}}),
    ],
)
def test_it_reads(text, expected):
    assert parse_values(text, TYPES) == expected


@pytest.mark.parametrize("text", ["true", "True", "1", "7"])
def test_it_reads_true(text):
    assert parse_values(f"b={text}", TYPES)["b"] is True


@pytest.mark.parametrize("text", ["false", "False", "0"])
def test_it_reads_false(text):
    assert parse_values(f"b={text}", TYPES)["b"] is False


def test_other_types_read_what_their_constructor_reads():
    assert parse_values("x=abc", {"x": bytes}) == {"x": b"abc"}
    assert parse_values("x=abc", {"x": type(None)}) == {"x": "abc"}


def test_names_may_have_dots_and_digits():
    assert parse_values("a.b=1,c_2=2,d..=3", {"a.b": int, "c_2": int, "d..": int}) == {
        "a.b": 1,
        "c_2": 2,
        "d..": 3,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xyz=123", "Unknown hyperparameter type for xyz"),
        ("xyz[1]=5", "Unknown hyperparameter type for xyz"),
        ("xyz=[1]", "Unknown hyperparameter type for xyz"),
        ("i=poipoi", "Could not parse hparam 'i' of type 'int' with value 'poipoi'"),
        ("i=1.0", "Could not parse"),
        ("i=", "Could not parse"),
        ("f=12x", "Could not parse"),
        ("i=[1.0]", "Could not parse"),
        ("f=[relu]", "Could not parse"),
        ("f[0]=relu", "Could not parse"),
        ("b=yep", "Could not parse hparam 'b'"),
        ("i=1,i=1", "Multiple assignments to variable 'i'"),
        ("i=[100,200],i[0]=10", "Multiple assignments to variable 'i'"),
        ("i[0]=10,i=[100]", "Multiple assignments to variable 'i'"),
        ("i[0]=10,i=100", "Multiple assignments to variable 'i'"),
        ("i[0]=10,i[0]=20", r"Multiple assignments to variable 'i\[0\]'"),
        ("i[1]=[1,2,3]", "Assignment of a list to a list index."),
        ("i", "Malformed hyperparameter value: 'i'"),
        ("i=1,,f=2", "Malformed hyperparameter value: ',f=2'"),
        ("i[x]=1", "Malformed"),
        ("i[-1]=1", "Malformed"),
        ("i[1.5]=1", "Malformed"),
        ("i=[1,2", "Malformed"),
        ("2i=1", "Malformed"),
        ("i=[1][2]", "Malformed"),
    ],
)
def test_it_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        parse_values(text, TYPES)


def test_unknown_names_may_be_passed_over():
    text = "i[0]=10,C=5,i[1]=20,B[0]=kkk,s=x,D=[1,2]"
    assert parse_values(text, TYPES, ignore_unknown=True) == {"i": {0: 10, 1: 20}, "s": "x"}
    assert parse_values("arr[1]=5", {}, ignore_unknown=True) == {}
    assert parse_values("arr[1]=5", {"arr[1]": int}, ignore_unknown=True) == {}


def test_what_is_known_is_checked_even_so():
    with pytest.raises(ValueError, match="Assignment of a list to a list index"):
        parse_values("C=5,i[1]=[1,2]", TYPES, ignore_unknown=True)
