"""Random messages of any type, for tests with hypothesis."""

import math

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor as Field
from hypothesis import strategies as st

_DOUBLES = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 0.01, math.nan])


def messages(descriptor, known=()):
    """A strategy for messages of a type.

    Args:
        descriptor: The type.
        known: Texts with a meaning for the receiver of the message.
    """
    kind = message_factory.GetMessageClass(descriptor)
    fields = {field.name: _values(field, known) for field in descriptor.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(**values))


def _values(field, known):
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return st.dictionaries(_single(key, known), _single(value, known), max_size=3)
    single = _single(field, known)
    return st.lists(single, max_size=3) if field.is_repeated else single


def _single(field, known):
    match field.cpp_type:
        case Field.CPPTYPE_MESSAGE:
            return messages(field.message_type, known)
        case Field.CPPTYPE_STRING if field.type == Field.TYPE_BYTES:
            return st.binary(max_size=30)
        case Field.CPPTYPE_STRING:
            # Protobuf has no text with lone surrogates.
            text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
            return st.sampled_from(known) | text if known else text
        case Field.CPPTYPE_BOOL:
            return st.booleans()
        case Field.CPPTYPE_DOUBLE | Field.CPPTYPE_FLOAT:
            return _DOUBLES
        case Field.CPPTYPE_ENUM | Field.CPPTYPE_INT32:
            return st.integers(-1, 4) | st.integers(-(2**31), 2**31 - 1)
        case _:
            return st.integers(-1, 4) | st.integers(-(2**63), 2**63 - 1)
